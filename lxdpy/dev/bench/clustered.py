"""What is measured of three members."""

import asyncio
import time
from collections.abc import Sequence

from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.load import Client, Refused, one_by_one
from lxdpy.dev.bench.peer import PREFIX, Peer
from lxdpy.dev.bench.single import PROFILE, fill, lists, profile, puts
from lxdpy.dev.bench.step import Scale, Step

MEMBERS = 3
AGAIN = 0.02  # seconds between attempts to write
RECOVER_WITHIN = 60.0  # seconds for a cluster to be whole again
IDLE = 5.0  # seconds to watch a daemon that nobody asks
EXEC = f"{PREFIX}exec"


async def join(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """The joins that made the cluster; there are no others."""
    taken, peer.joining = peer.joining, []
    return {"join": taken}


async def idle(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    peer.spent()
    await asyncio.sleep(IDLE)
    spent = peer.spent() / len(peer.daemons)
    memory = [daemon.memory()[0] for daemon in peer.daemons]
    return {"idle": [100 * spent / IDLE], "memory-3": memory}


async def put(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """Through the member that leads, and through one that does not."""
    leading, leading_abreast = await puts(peer.clients[await leader(peer)], scale)
    alone, abreast = await puts(peer.clients[await follower(peer)], scale)
    return {
        "put-leader": leading,
        "put-leader-32": [leading_abreast],
        "put-3": alone,
        "put-3-32": [abreast],
    }


async def list_many(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    first, second = await lists(peer.clients[1], scale)
    return {"list-3-1": first, "list-3-2": second}


async def everywhere(peer: Peer, url: str) -> None:
    """Until each member answers: what one was told reaches the others a moment later."""
    async with asyncio.timeout(RECOVER_WITHIN):
        for client in peer.clients:
            while True:
                try:
                    await client.ask("GET", url)
                except Refused:
                    await asyncio.sleep(AGAIN)
                else:
                    break


async def profile_everywhere(peer: Peer, scale: Scale) -> None:
    await profile(peer, scale)
    await everywhere(peer, "/1.0/profiles/bench")


async def run_one(peer: Peer, scale: Scale) -> None:
    await peer.create(EXEC, target=peer.daemon.name)
    await everywhere(peer, f"/1.0/instances/{EXEC}")
    await peer.state_of(EXEC, "start")


async def end_one(peer: Peer, scale: Scale) -> None:
    await peer.state_of(EXEC, "stop")
    await peer.delete(EXEC)


async def forward(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """In pairs, so that what slows both is in neither."""

    async def here(_: int) -> None:
        await peer.execute(EXEC)

    async def there(_: int) -> None:
        await peer.execute(EXEC, member=1)

    pairs = [(await one_by_one(there, [0]), await one_by_one(here, [0])) for _ in range(scale.samples * 2)]
    return {"forward": [far[0] - near[0] for far, near in pairs]}


async def leader(peer: Peer, through: int = 0) -> int:
    """Its number. Raises Refused while there is none."""
    rows = await peer.clients[through].ask("GET", "/1.0/cluster/members?recursion=1")
    names = [row["server_name"] for row in rows if "database-leader" in row["roles"]]
    if not names:
        raise Refused("no leader")
    return [daemon.name for daemon in peer.daemons].index(names[0])


async def follower(peer: Peer) -> int:
    return (await leader(peer) + 1) % len(peer.daemons)


async def write(client: Client, within: float) -> None:
    """Until it is acknowledged. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while True:
            try:
                await client.ask("PUT", "/1.0/profiles/bench", PROFILE)
            except (Refused, OSError, EOFError):
                await asyncio.sleep(AGAIN)
            else:
                return


async def all_vote(peer: Peer, scale: Scale) -> None:
    """Else the one that is killed may be half of those who do, so soon after they joined."""
    await profile(peer, scale)
    async with asyncio.timeout(RECOVER_WITHIN):
        while True:
            rows = await peer.client.ask("GET", "/1.0/cluster/members?recursion=1")
            if all({"database", "database-leader"} & {*row["roles"]} for row in rows):
                return
            await asyncio.sleep(AGAIN)


async def failover(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    return {"failover": [await fail_over(peer) for _ in range(scale.failovers)]}


async def fail_over(peer: Peer) -> float:
    """Seconds from kill -9 of the leader to the first acknowledged write through another; then it is back."""
    found = await leader(peer)
    other = (found + 1) % len(peer.daemons)
    await write(peer.clients[other], RECOVER_WITHIN)
    begin = time.perf_counter()
    peer.daemons[found].kill()
    await write(peer.clients[other], RECOVER_WITHIN)
    seconds = time.perf_counter() - begin
    await asyncio.to_thread(peer.daemons[found].start)
    await peer.reconnect()
    for client in peer.clients:
        await write(client, RECOVER_WITHIN)
    return seconds


STEPS = (
    Step((Measure("join", "join with a token", "s"),), join, heavy=True),
    Step(
        (
            Measure("idle", "processor of an idle member of three", "%"),
            Measure("memory-3", "resident memory of a member of three", "MiB"),
        ),
        idle, heavy=True,
    ),
    Step(
        (
            Measure("put-leader", "PUT of a profile through the leader of three", "ms", "<= 0.5"),
            Measure("put-leader-32", "the same, 32 at a time", "/s", ">= 10"),
            Measure("put-3", "PUT of a profile through a follower of three", "ms", "<= 0.5"),
            Measure("put-3-32", "the same, 32 at a time", "/s", ">= 10"),
        ),
        put, before=profile_everywhere,
    ),
    Step((Measure("forward", "forwarded exec minus local exec", "ms"),), forward,
         before=run_one, after=end_one),
    Step(
        (
            Measure("list-3-1", "list of many on three members, recursion=1", "ms", "<= 0.02"),
            Measure("list-3-2", "list of many on three members, recursion=2", "ms", "<= 0.01"),
        ),
        list_many, heavy=True, before=fill,
    ),
    Step((Measure("failover", "leader killed to a write through another", "s"),), failover, heavy=True,
         before=all_vote),
)  # fmt: skip
