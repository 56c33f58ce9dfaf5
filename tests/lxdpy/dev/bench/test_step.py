import asyncio
from collections.abc import Sequence
from pathlib import Path

from lxdpy.dev.bench.daemons import LXD, LXDPY
from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.peer import Peer
from lxdpy.dev.bench.step import QUICK, Scale, Step, play

MEASURE = Measure("m", "m", "ms")
OTHER = Measure("o", "o", "ms")


def test_peers_take_turns(tmp_path: Path) -> None:
    done: list[str] = []

    async def before(peer: Peer, scale: Scale) -> None:
        done.append(f"before {peer.kind.name}")

    async def after(peer: Peer, scale: Scale) -> None:
        done.append(f"after {peer.kind.name}")

    async def turn(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
        done.append(peer.kind.name)
        return {"m": [float(len(done))]}

    peers = [Peer(kind, tmp_path / kind.name, 1) for kind in (LXDPY, LXD)]
    found = asyncio.run(play(Step((MEASURE, OTHER), turn, before=before, after=after), peers, QUICK))
    assert done == [
        "before lxdpy", "before lxd", "lxdpy", "lxd", "lxdpy", "lxd", "after lxdpy", "after lxd",
    ]  # fmt: skip
    assert found == {
        "m": {"lxdpy": [[3.0], [5.0]], "lxd": [[4.0], [6.0]]},
        "o": {"lxdpy": [(), ()], "lxd": [(), ()]},
    }


def test_a_heavy_step_has_fewer_turns() -> None:
    async def turn(peer: Peer, scale: Scale) -> dict[str, Sequence[float]]:
        return {}

    assert Step((MEASURE,), turn, heavy=True).turns(QUICK) < Step((MEASURE,), turn).turns(QUICK)
