"""What a step of a run is, and how much of everything it does."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from lxdpy.dev.bench.figures import Measure
from lxdpy.dev.bench.peer import Peer


class Scale(msgspec.Struct, frozen=True):
    """How often and how many. All per turn, but `instances`."""

    turns: int  # of each peer
    heavy_turns: int  # of steps that take many seconds
    samples: int  # of what takes milliseconds, one after another
    requests: int  # of what takes well under one
    abreast: int  # requests of a rate, at 32 or 16 at a time
    launches: int
    instances: int  # of "many instances"
    sessions: int  # programs that clients are attached to at one time
    consoles: int  # the same of consoles
    failovers: int  # leaders killed
    simulated: int  # rows of instances in the simulated cluster


FULL = Scale(
    turns=5,
    heavy_turns=3,
    samples=8,
    requests=300,
    abreast=1600,
    launches=48,
    instances=300,
    sessions=1000,
    consoles=200,
    failovers=4,
    simulated=50_000,
)
QUICK = Scale(
    turns=2,
    heavy_turns=1,
    samples=3,
    requests=50,
    abreast=320,
    launches=8,
    instances=40,
    sessions=40,
    consoles=20,
    failovers=1,
    simulated=5_000,
)

Turn = Callable[[Peer, Scale], Awaitable[Mapping[str, Sequence[float]]]]
"""One peer's turn: samples by the measure's name."""
Around = Callable[[Peer, Scale], Awaitable[object]]


async def nothing(peer: Peer, scale: Scale) -> None:
    return None


class Step(msgspec.Struct, frozen=True):
    """Turns that give one or more measures. `before` and `after` are not timed, once a peer."""

    measures: tuple[Measure, ...]
    turn: Turn
    heavy: bool = False
    before: Around = nothing
    after: Around = nothing

    def turns(self, scale: Scale) -> int:
        return scale.heavy_turns if self.heavy else scale.turns


async def play(
    step: Step, peers: Sequence[Peer], scale: Scale
) -> dict[str, dict[str, list[Sequence[float]]]]:
    """Samples by measure, peer and turn; the peers alternate."""
    for peer in peers:
        await step.before(peer, scale)
    turns: dict[str, dict[str, list[Sequence[float]]]] = {
        measure.name: {peer.kind.name: [] for peer in peers} for measure in step.measures
    }
    for _ in range(step.turns(scale)):
        for peer in peers:
            samples = await step.turn(peer, scale)
            for measure in step.measures:
                turns[measure.name][peer.kind.name].append(samples.get(measure.name, ()))
    for peer in peers:
        await step.after(peer, scale)
    return turns
