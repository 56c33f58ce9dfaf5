"""What is measured of a single member."""

import asyncio
import itertools
from collections.abc import Sequence

from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.load import Client, one_by_one, rate, request, timed
from lxdpy.dev.bench.peer import PREFIX, Peer
from lxdpy.dev.bench.step import Scale, Step

SETTLE = 1.0  # seconds after a start until memory is looked at
ABREAST = 8  # launches, and creations to fill up, at a time
AT_ONCE = (50, 100)  # launches of those who do not take turns
PROFILE = {"config": {"user.bench": ""}, "description": "", "devices": {}}
_count = itertools.count()


def names(number: int) -> Sequence[str]:
    """Never used before."""
    return [f"{PREFIX}{next(_count)}" for _ in range(number)]


async def boot(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    peer.daemon.stop()
    seconds = await asyncio.to_thread(peer.daemon.start)
    await peer.reconnect()
    await asyncio.sleep(SETTLE)
    daemon, helpers = peer.daemon.memory()
    return {"start": [seconds], "memory": [daemon], "memory-helpers": [helpers]}


async def boot_empty(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    return {f"{name}-0": samples for name, samples in (await boot(peer, scale)).items()}


async def boot_full(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """Also what it holds after all were listed twice."""
    found = {f"{name}-many": samples for name, samples in (await boot(peer, scale)).items()}
    for _ in range(2):
        await peer.client.raw(request("GET", "/1.0/instances?recursion=2"))
    return found | {"memory-read-many": [peer.daemon.memory()[0]]}


async def get(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    ask = request("GET", "/1.0")
    client = peer.client

    async def work(_: int) -> None:
        await client.raw(ask)

    alone = await one_by_one(work, range(scale.requests))
    return {"get": alone, "get-32": [await rate(work, range(scale.abreast * 2), 32)]}


async def life(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """One instance after another, from nothing to nothing."""
    found: dict[str, list[float]] = {"create": [], "start": [], "exec": [], "stop": [], "delete": []}
    for name in names(scale.samples):
        found["create"].append(1000 * await timed(peer.create(name)))
        found["start"].append(1000 * await timed(peer.state_of(name, "start")))
        found["exec"].append(1000 * await timed(peer.execute(name)))
        found["stop"].append(1000 * await timed(peer.state_of(name, "stop")))
        found["delete"].append(1000 * await timed(peer.delete(name)))
    return dict(found)


async def run_one(peer: Peer, scale: Scale) -> None:
    await peer.create(f"{PREFIX}exec")
    await peer.state_of(f"{PREFIX}exec", "start")


async def end_one(peer: Peer, scale: Scale) -> None:
    await peer.state_of(f"{PREFIX}exec", "stop")
    await peer.delete(f"{PREFIX}exec")


async def executes(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    async def work(_: int) -> None:
        await peer.execute(f"{PREFIX}exec")

    return {"exec-16": [await rate(work, range(max(16, scale.abreast // 10)), 16)]}


async def puts(client: Client, scale: Scale) -> tuple[Sequence[float], float]:
    """Milliseconds of each write of a profile that nothing uses; writes a second, 32 at a time."""

    async def work(number: int) -> None:
        body = PROFILE | {"config": {"user.bench": str(number)}}
        await client.ask("PUT", "/1.0/profiles/bench", body)

    alone = await one_by_one(work, range(scale.requests // 6))
    return alone, await rate(work, range(scale.abreast // 4), 32)


async def profile(peer: Peer, scale: Scale) -> None:
    """The one that is written to, if it is not there."""
    if "/1.0/profiles/bench" not in await peer.client.ask("GET", "/1.0/profiles"):
        await peer.client.ask("POST", "/1.0/profiles", {"name": "bench", **PROFILE})


async def put(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    alone, abreast = await puts(peer.client, scale)
    return {"put": alone, "put-32": [abreast]}


async def launch(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """Create and start, 8 at a time; look at all while they run; take them away."""
    made = names(scale.launches)

    async def look(_: int) -> None:
        await peer.client.raw(request("GET", "/1.0/instances?recursion=2"))

    launched, processor = await up(peer, made, ABREAST)
    looks = await one_by_one(look, range(scale.samples))
    return {
        "launch": [launched], "launch-cpu": [processor], "list-running": looks,
        "end": [await down(peer, made)],
    }  # fmt: skip


async def launch_at_once(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    """Many create and start at the same time, each as soon as it is made."""
    found: dict[str, Sequence[float]] = {}
    for number in AT_ONCE:
        made = names(number)
        launched, processor = await up(peer, made, number)
        found |= {f"launch-{number}": [launched], f"launch-{number}-cpu": [processor]}
        await down(peer, made)
    return found


async def up(peer: Peer, made: Sequence[str], abreast: int) -> tuple[float, float]:
    """Launches a second, and the daemon's milliseconds of processor time for each."""

    async def work(number: int) -> None:
        await peer.create(made[number])
        await peer.state_of(made[number], "start")

    peer.spent()
    launched = await rate(work, range(len(made)), abreast)
    return launched, 1000 * peer.spent() / len(made)


async def down(peer: Peer, made: Sequence[str]) -> float:
    """How many were stopped by force and deleted a second."""

    async def work(number: int) -> None:
        await peer.state_of(made[number], "stop")
        await peer.delete(made[number])

    return await rate(work, range(len(made)), ABREAST)


async def fill(peer: Peer, scale: Scale) -> None:
    """So many stopped instances, if they are not there."""
    there = set(await peer.client.ask("GET", "/1.0/instances"))
    wanted = [f"{PREFIX}many-{number}" for number in range(scale.instances)]
    missing = [name for name in wanted if f"/1.0/instances/{name}" not in there]

    async def work(number: int) -> None:
        await peer.create(missing[number])

    if missing:
        await rate(work, range(len(missing)), ABREAST)


async def lists(client: Client, scale: Scale) -> tuple[Sequence[float], Sequence[float]]:
    """Milliseconds of recursion=1 and of recursion=2."""

    async def look(recursion: int) -> None:
        await client.raw(request("GET", f"/1.0/instances?recursion={recursion}"))

    first = await one_by_one(look, [1] * scale.samples)
    return first, await one_by_one(look, [2] * max(2, scale.samples // 4))


async def list_many(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
    first, second = await lists(peer.client, scale)
    return {"list-1": first, "list-2": second}


STEPS = (
    Step(
        (
            Measure("start-0", "start to ready, no instances", "s"),
            Measure("memory-0", "resident memory of the daemon, no instances", "MiB"),
            Measure("memory-helpers-0", "resident memory of its helpers, no instances", "MiB"),
        ),
        boot_empty,
    ),
    Step(
        (
            Measure("get", "GET /1.0", "ms", "<= 1.5"),
            Measure("get-32", "GET /1.0, 32 at a time", "/s", ">= 0.7"),
        ),
        get,
    ),
    Step(
        (
            Measure("create", "create", "ms", "<= 0.3"),
            Measure("start", "start", "ms", "<= 0.2"),
            Measure("exec", "exec true", "ms", "<= 0.5"),
            Measure("stop", "stop --force", "ms", "<= 0.05"),
            Measure("delete", "delete", "ms", "<= 0.5"),
        ),
        life,
    ),
    Step(
        (Measure("exec-16", "exec true, 16 at a time", "/s", ">= 1.5"),),
        executes, before=run_one, after=end_one,
    ),
    Step(
        (
            Measure("put", "PUT of a profile", "ms", "<= 0.5"),
            Measure("put-32", "PUT of a profile, 32 at a time", "/s", ">= 5"),
        ),
        put, before=profile,
    ),
    Step(
        (
            Measure("launch", "launch, 8 at a time", "/s", ">= 6"),
            Measure("launch-cpu", "daemon's processor time a launch", "ms", "<= 0.5"),
            Measure("list-running", "list of the launched, recursion=2", "ms", "<= 0.02"),
            Measure("end", "stop --force and delete, 8 at a time", "/s"),
        ),
        launch, heavy=True,
    ),
    Step(
        tuple(
            measure
            for number in AT_ONCE
            for measure in (
                Measure(f"launch-{number}", f"launch, {number} at the same time", "/s", ">= 6"),
                Measure(
                    f"launch-{number}-cpu", f"daemon's processor time a launch of {number}", "ms", "<= 0.5"
                ),
            )
        ),
        launch_at_once, heavy=True,
    ),
    Step(
        (
            Measure("list-1", "list of many stopped, recursion=1", "ms", "<= 0.2"),
            Measure("list-2", "list of many stopped, recursion=2", "ms", "<= 0.02"),
        ),
        list_many, before=fill,
    ),
    Step(
        (
            Measure("start-many", "start to ready, many stopped", "s"),
            Measure("memory-many", "resident memory of the daemon, many stopped", "MiB", "<= 0.5"),
            Measure("memory-read-many", "the same after two lists, recursion=2", "MiB", "<= 0.5"),
            Measure("memory-helpers-many", "resident memory of its helpers, many stopped", "MiB"),
        ),
        boot_full, heavy=True, before=fill,
    ),
)  # fmt: skip
