"""best(): of the members that fit an ask, the one its policy ranks first, without looking closely at all.

To match the GPUs of a member with an ask takes a hundred times as long as to count those that are free. The
count bounds the score, and only members whose bound is below all known scores are matched.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from cluster.scheduler.eligible import usable
from cluster.scheduler.policies import Score
from cluster.scheduler.types import Ask, GpuAsk, GpuState, MemberView

FREE: frozenset[GpuState] = frozenset({"free"})
ROOMY: frozenset[GpuState] = frozenset({"free", "shared"})


def best(
    ask: Ask, members: Iterable[MemberView], score: Score, fits: Callable[[MemberView], bool]
) -> MemberView | None:
    """The one with the lowest score, of equals the one that comes first; None if none fits."""
    queue: list[tuple[tuple[float, ...], int, bool, MemberView]] = []
    least, most, exact = need(ask), counter(ask), plain(ask)
    for place, member in enumerate(members):
        there = most(member)
        if there >= least:
            bound = score(there, ask, member)
            if not exact:
                bound = min(bound, score(least, ask, member))
            queue.append((bound, place, False, member))
    heapify(queue)
    while queue:
        _, place, matched, member = heappop(queue)
        if matched:
            return member
        if fits(member):
            heappush(queue, (score(_usable(ask, member), ask, member), place, True, member))
    return None


def need(ask: Ask) -> int:
    """How many GPUs a member must have for it at least: counted devices get different ones."""
    return max(sum(each.count for each in ask.gpus), 1) if ask.gpus else 0


def counter(ask: Ask) -> Callable[[MemberView], int]:
    """Counts the GPUs of a member that the ask could have at most, whatever else it demands of them."""
    states = ROOMY if any(each.sharing == "shared" for each in ask.gpus) else FREE
    parts = {each.kind == "mig" for each in ask.gpus}
    held = frozenset(uuid for each in ask.gpus for uuid in each.held)
    return lambda member: sum(
        [
            (gpu.state in states and gpu.health == "ok" and (gpu.parent != "") in parts) or gpu.uuid in held
            for gpu in member.gpus
        ]
    )


def plain(ask: Ask) -> bool:
    """Whether nothing else is demanded, so that all of them will do."""
    return not ask.gpus or ask.gpus == (
        GpuAsk(
            device=ask.gpus[0].device,
            count=ask.gpus[0].count,
            kind=ask.gpus[0].kind,
            sharing=ask.gpus[0].sharing,
            prefer=ask.gpus[0].prefer,
        ),
    )


def _usable(ask: Ask, member: MemberView) -> int:
    """GPUs this ask could have; one that serves several of its devices counts once."""
    return len({gpu.uuid for each in ask.gpus for gpu in usable(each, member.gpus)})
