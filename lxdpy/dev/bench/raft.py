"""What is measured of the Raft layer alone: one leader here, two followers in processes of their own.

On loopback, with TLS, and synced logs on the disk of the folder that is given. As in the daemon, who asks is
in the leader's process, on the loop of another thread.
"""

import asyncio
import gc
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.raft.compaction import MAX_JOURNAL
from cluster.raft.store import Store
from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.load import Work, one_by_one, rate
from lxdpy.dev.bench.raft_group import LEADER, NAMES, Put, opened, prepared, started
from lxdpy.dev.bench.step import Scale

ROWS = 100_000
AT_ONCE = 256
LARGE = 1000  # rows of one change, when many are made
TEXT = "x" * 100  # of a row
BALLAST = "x" * 100_000  # of a change that is to make the log grow
NEARLY = 0.8  # of the bytes at which a snapshot is made
JOINS_WITHIN = 30.0  # seconds

MEASURES = (
    Measure("raft-write", "log alone: a write (goal 3)", "ms"),
    Measure("raft-writes", f"log alone: writes, {AT_ONCE} at a time (goal 5,000)", "/s"),
    Measure("raft-read", "log alone: a linearizable read (goal 2)", "ms"),
    Measure("raft-rows", f"log alone: a write beside {ROWS:,} rows", "ms"),
    Measure("raft-stall", f"log alone: longest stall in a snapshot of {ROWS:,} rows (goal 50)", "ms"),
    Measure("raft-calm", "the same as long as no snapshot is made", "ms"),
    Measure("raft-restart", f"log alone: restart with {ROWS:,} rows (goal 3)", "s"),
)
Followers = dict[str, subprocess.Popen[bytes]]


async def measured(folder: Path, scale: Scale) -> Mapping[str, Sequence[Sequence[float]]]:
    """Samples by measure, a block a turn."""
    gc.freeze()  # as the daemon does
    found: dict[str, list[Sequence[float]]] = {measure.name: [] for measure in MEASURES}
    async with group(folder) as (store, followers):
        for _ in range(scale.turns):
            found["raft-write"].append(await one_by_one(writer(store), range(scale.requests)))
            found["raft-writes"].append([await rate(writer(store), range(scale.abreast * 5), AT_ONCE)])
            found["raft-read"].append(await one_by_one(lambda _: store.read_index(), range(scale.requests)))
        for first in range(0, ROWS, LARGE):
            await store.propose(Put([f"row{first + number}" for number in range(LARGE)], TEXT))
        for _ in range(scale.turns):
            found["raft-rows"].append(await one_by_one(writer(store), range(scale.requests)))
            found["raft-calm"].append([1000 * await longest_read(store, until=nearly_due(store))])
            found["raft-stall"].append([1000 * await longest_read(store, until=shrunk(store))])
        for _ in range(scale.heavy_turns):
            found["raft-restart"].append([await restart(folder, followers, "b")])
    return found


@asynccontextmanager
async def group(folder: Path) -> AsyncIterator[tuple[Store, Followers]]:
    """The leader, and the followers' processes by name."""
    prepared(folder)
    followers: Followers = {}
    try:
        async with opened(folder, LEADER) as store:
            store.set_learners(NAMES)
            for name in sorted({*NAMES} - {LEADER}):
                followers[name] = started(folder, name)
                await store.add_voter(name, timeout=JOINS_WITHIN)
            yield store, followers
    finally:
        for process in followers.values():
            end(process)
        shutil.rmtree(folder, ignore_errors=True)


def writer(store: Store) -> Work:
    return lambda number: store.propose(Put([f"w{number}"], TEXT))


async def longest_read(store: Store, until: Callable[[], bool]) -> float:
    """Seconds a read took at most, while the log grows."""
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            began = time.perf_counter()
            await store.read_index()
            worst = max(worst, time.perf_counter() - began)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        while not until():
            await store.propose(Put(["ballast"], BALLAST))
        watching.cancel()
    return worst


def nearly_due(store: Store) -> Callable[[], bool]:
    """Whether the next snapshot is near."""
    return lambda: store.status()["journal_bytes"] > NEARLY * MAX_JOURNAL


def shrunk(store: Store) -> Callable[[], bool]:
    """Whether there is a snapshot newer than that of now, and the log has become shorter for it."""
    before, size = store.status()["snapshot"], 0

    def found() -> bool:
        nonlocal size
        now = store.status()
        shorter, size = now["journal_bytes"] < size, now["journal_bytes"]
        return bool(now["snapshot"] > before and shorter)

    return found


async def restart(folder: Path, followers: Followers, name: str) -> float:
    """Seconds from the start of its process until it has all that was acknowledged."""
    end(followers[name])
    began = time.perf_counter()
    followers[name] = started(folder, name)
    stdout = followers[name].stdout
    assert stdout is not None
    assert await asyncio.to_thread(stdout.readline) == b"ready\n"
    return time.perf_counter() - began


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
