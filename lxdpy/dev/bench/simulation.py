"""One member of a large cluster, without containers; state machine, scheduler and log are what they are.

Run as a program of its own, so that memory is its own. Rows go through the log of a group of one, on a real
disk. Prints samples by measure as JSON.
"""

import argparse
import asyncio
import gc
import os
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NoReturn

import msgspec

from cluster.membership.commands import CreateToken, EnableCluster, FoundCluster, JoinMember, ReadyMember
from cluster.membership.model import Cluster, Member, Token, member_named
from cluster.membership.tokens import hash_of
from cluster.raft import compaction
from cluster.raft.store import Identity, Store
from cluster.scheduler.explain import explain
from cluster.scheduler.match import parse
from cluster.scheduler.place import place
from cluster.scheduler.queue import Waiter, planning
from cluster.scheduler.types import Ask, GpuAsk
from cluster.state.command import Command, entry_of
from cluster.state.machine import digest
from lxdpy.dev.bench.figures import Measure
from lxdpy.resources.gpus.commands import Grant, ReportGpus
from lxdpy.resources.gpus.model import GpuRow
from lxdpy.resources.instances.claims import grants_of, views
from lxdpy.resources.instances.commands import CreateInstance
from lxdpy.resources.instances.model import INSTANCES, Instance, Source
from lxdpy.resources.server.commands import ConfigureServer, CreateDefaults
from lxdpy.resources.storage_pools.commands import CreatePool
from lxdpy.resources.storage_pools.model import Pool, PoolMember
from lxdpy.resources.tables import new_machine

MEASURES = (
    Measure("sim-propose", "instances written to the log and applied", "/s"),
    Measure("sim-apply", "instances applied by a follower", "/s"),
    Measure("sim-grant", "GPUs granted, by the log and its application", "/s", "1,000 /s"),
    Measure("sim-place", "placement of GPUs by the scheduler, CPU time", "ms", "5 ms"),
    Measure("sim-explain", "the same explained, member by member, CPU time", "ms", "50 ms"),
    Measure("sim-queue", "longest step of a plan for 30 that wait for GPUs, CPU time", "ms", "50 ms"),
    Measure("sim-memory", "memory of an instance", "KiB"),
    Measure("sim-snapshot", "snapshot, written beside the work", "s"),
    Measure("sim-stall", "longest stall of the event loop meanwhile", "ms"),
    Measure("sim-calm", "longest stall in as long a time without a snapshot", "ms"),
    Measure("sim-write", "writes meanwhile", "ms"),
    Measure("sim-restart", "log and snapshot read at a restart", "s"),
)
GPUS = 8  # of a member
ALONE, TOGETHER = 3, 4  # of them, held exclusively, and shared by
SHARERS = 17
HOLDERS = ALONE + SHARERS  # of a member: 20,000 of 1,000 members
ABREAST = 512  # writes at a time: two entries of the log, as many as are under way at once
APPLIED = 5000
PLACED = 60
EXPLAINED = 20
WAITING = 30
SNAPSHOTS = 5
NEVER = 1 << 60  # bytes of the log before a snapshot is made: the time for it is ours to choose
TICK = 0.001  # seconds between looks at the clock: what is more is stall
ME = "0" * 12
ASKS = tuple(
    Ask(architecture="x86_64", gpus=(GpuAsk(device="gpu", **wish),))
    for wish in (
        {"count": 1},
        {"count": 1, "match": parse("vendor=nvidia model~A100 memory>=40GiB")},
        {"count": 2, "sharing": "shared", "memory": 4 << 30},
    )
)


class Nobody:
    """Trust, for a group of one."""

    def server(self) -> ssl.SSLContext:
        self._refuse()

    def client(self, member_id: str) -> ssl.SSLContext:
        self._refuse()

    def member_of(self, der: bytes) -> str | None:
        return None

    def was_removed(self, der: bytes, member: str) -> bool:
        return False

    def _refuse(self) -> NoReturn:
        raise ssl.SSLError("a group of one has no links")


def new_store(folder: Path, *, fresh: bool) -> Store:
    return Store(
        folder,
        Identity("c" * 32, ME),
        new_machine(),
        addresses=dict,
        voters=[ME],
        contexts=Nobody(),
        fresh=fresh,
    )


def id_of(number: int) -> str:
    return f"{number:012x}"


def cluster(members: int) -> Iterable[Command]:
    """Members with GPUs, and a pool."""
    pem = "x" * 850  # a certificate of ours has about as many
    yield FoundCluster(Cluster("c" * 32), Member(ME, "none", certificate=pem, status="ready"))
    yield CreateDefaults()
    yield CreatePool(Pool("default", "dir", members={ME: PoolMember()}))
    yield EnableCluster(ME, "n0", "10.0.0.1:8443", pem, pem)
    for number in range(1, members):
        name = f"n{number}"
        yield CreateToken(Token(name, "member", name, hash_of(name), 0.0))
        row = Member(
            id_of(number), name, address=f"{name}:8443", certificate=f"{pem}{name}", fingerprint=name
        )
        yield JoinMember(hash_of(name), row)
        yield ReadyMember(id_of(number))
    for number in range(members):
        yield ReportGpus(id_of(number), tuple(gpu(number, card) for card in range(GPUS)))


def gpu(member: int, card: int) -> GpuRow:
    return GpuRow(uuid_of(member, card), id_of(member), "nvidia", "A100-SXM4-80GB", 80 << 30, driver="nvidia")


def uuid_of(member: int, card: int) -> str:
    return f"GPU-{member:08x}-{card:04x}"


def holders(members: int) -> Iterable[tuple[int, Grant]]:
    """Grants that leave every member one free GPU, each with its member: one instance's each."""
    for holder in range(HOLDERS):
        for member in range(members):
            if holder < ALONE:
                yield member, Grant("gpu", uuid_of(member, holder))
            else:
                card = ALONE + holder % TOGETHER
                yield member, Grant("gpu", uuid_of(member, card), "shared", 8 << 30)


def instance(number: int, member: int, *grants: Grant) -> Command:
    """As `lxc launch debian/12 -c limits.cpu=2` records it."""
    uuid = f"{number:032x}"
    config = {
        "limits.cpu": "2", "limits.memory": "4GiB", "image.os": "Debian", "image.release": "bookworm",
        "volatile.base_image": "f" * 64, "volatile.uuid": uuid, "volatile.cloud-init.instance-id": uuid,
    }  # fmt: skip
    return CreateInstance(
        Instance(
            project="default",
            name=f"c{number}",
            uuid=uuid,
            location=id_of(member),
            config=config,
            profiles=("default",),
            created_at=1.7e9 + number,
            idmap=number,
            source=Source("image", "f" * 64),
            operation=uuid,
            created_by={"protocol": "unix", "username": "root", "address": "@"},
        ),
        grants,
    )


async def propose_all(store: Store, commands: Iterable[Command]) -> None:
    """The log has them in this order, as one task after the other is started."""
    waiting: set[asyncio.Task[None]] = set()

    async def propose(command: Command) -> None:
        await store.propose(command, timeout=60)

    async with asyncio.TaskGroup() as tasks:
        for command in commands:
            waiting.add(tasks.create_task(propose(command)))
            if len(waiting) >= ABREAST:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


def resident() -> int:
    """Bytes of this process' memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def stalls(samples: list[float]) -> AsyncIterator[None]:
    """Within, by how much the loop is late at most, in milliseconds."""
    worst, over = 0.0, False

    async def look() -> None:
        nonlocal worst
        while not over:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            worst = max(worst, time.perf_counter() - before - TICK)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        await asyncio.sleep(0)
        yield
        over = True
    samples.append(worst * 1000)


class Run:
    """One store, from nothing to as many instances, and again from its files."""

    def __init__(self, folder: Path, members: int, instances: int) -> None:
        self.folder = folder
        self.members = members
        self.wanted = instances
        self.instances = 0
        self.samples: dict[str, list[float]] = {measure.name: [] for measure in MEASURES}
        self.store = new_store(folder, fresh=True)

    async def all(self) -> Mapping[str, list[float]]:
        await self.store.start()
        await propose_all(self.store, cluster(self.members))
        await self.fill()
        await self.grant()
        await self.place()
        self.explain()
        self.plan()
        self.apply()
        await self.snapshots()
        await self.store.stop()
        await self.restart()
        return self.samples

    async def fill(self) -> None:
        """With instances that hold no GPU; those that do come after them."""
        count = self.wanted - self.members * HOLDERS
        gc.collect()
        memory, begin = resident(), time.perf_counter()
        await propose_all(self.store, (self.new(number % self.members) for number in range(count)))
        self.samples["sim-propose"].append(count / (time.perf_counter() - begin))
        gc.collect()
        self.samples["sim-memory"].append((resident() - memory) / count / 1024)

    async def grant(self) -> None:
        wishes = list(holders(self.members))
        begin = time.perf_counter()
        rows = (self.new(member, wish) for member, wish in wishes)
        await propose_all(self.store, rows)
        self.samples["sim-grant"].append(len(wishes) / (time.perf_counter() - begin))

    async def place(self) -> None:
        """On the whole cluster as it is after the one before."""
        for ask in islice(cycle(ASKS), PLACED):
            begin = time.thread_time()
            found = place(ask, views(self.store.state, lambda _: True))
            self.samples["sim-place"].append((time.thread_time() - begin) * 1000)
            member = member_named(self.store.state, found.member)
            await self.store.propose(self.new(int(member.id, 16), *grants_of(ask, found)))

    def explain(self) -> None:
        for ask in islice(cycle(ASKS), EXPLAINED):
            begin = time.thread_time()
            explain(ask, views(self.store.state, lambda _: True))
            self.samples["sim-explain"].append((time.thread_time() - begin) * 1000)

    def plan(self) -> None:
        """Nobody can be served, each for another reason; the first has GPUs kept."""
        members = views(self.store.state, lambda _: True)
        late = [
            Waiter(
                id=str(n),
                asks=(Ask(gpus=(GpuAsk(device="gpu", count=6, match=parse(f"memory>={n}GiB")),)),),
                since=n,
            )
            for n in range(WAITING)
        ]
        work, longest = planning(late, members, {}), 0.0
        while True:
            begin = time.thread_time()
            over = next(work, True)
            longest = max(longest, time.thread_time() - begin)
            if over:
                break
        self.samples["sim-queue"].append(longest * 1000)

    def new(self, member: int, *grants: Grant) -> Command:
        self.instances += 1
        return instance(self.instances - 1, member, *grants)

    def apply(self) -> None:
        """As a follower does; onto the state as it is, which is not changed by it."""
        machine = new_machine()
        machine.state = self.store.state
        commands = (self.new(number % self.members) for number in range(APPLIED))
        entries = [
            entry_of(command, request_id=str(number), proposer=ME, proposed_at=0.0)
            for number, command in enumerate(commands)
        ]
        begin = time.perf_counter()
        for index, entry in enumerate(entries, machine.state.index + 1):
            machine.apply(index, entry)
        self.samples["sim-apply"].append(APPLIED / (time.perf_counter() - begin))
        if len(machine.state.rows(INSTANCES)) != self.instances:
            raise RuntimeError("instances were refused")

    async def snapshots(self) -> None:
        """While one write follows the other; and as many seconds of writes without one, to compare with."""
        for _ in range(SNAPSHOTS):
            before, begin = self.store.status()["snapshot"], time.perf_counter()
            async with stalls(self.samples["sim-stall"]):
                compaction.MAX_JOURNAL = 0  # now is the time for one
                while self.store.status()["snapshot"] == before:
                    self.samples["sim-write"].append(await self.write())
                compaction.MAX_JOURNAL = NEVER
            taken = time.perf_counter() - begin
            self.samples["sim-snapshot"].append(taken)
            async with stalls(self.samples["sim-calm"]):
                while time.perf_counter() - begin < 2 * taken:
                    await self.write()

    async def write(self) -> float:
        """Milliseconds that one took."""
        begin = time.perf_counter()
        await self.store.propose(ConfigureServer({"user.at": str(begin)}))
        return (time.perf_counter() - begin) * 1000

    async def restart(self) -> None:
        before = digest(self.store.state)
        self.store = new_store(self.folder, fresh=False)
        gc.collect()
        begin = time.perf_counter()
        await self.store.start()
        self.samples["sim-restart"].append(time.perf_counter() - begin)
        if digest(self.store.state) != before:
            raise RuntimeError("another state after the restart")
        await self.store.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, required=True, help="on the disk that is to be measured")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lxdpy-simulation-", dir=args.folder))
    compaction.MAX_JOURNAL = NEVER
    gc.freeze()  # as the daemon does
    try:
        samples = asyncio.run(Run(folder / "raft", args.members, args.instances).all())
        sys.stdout.buffer.write(msgspec.json.encode(samples))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
