"""Looking closely at few members finds the same as looking at all."""

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduler.eligible import usable
from cluster.scheduler.match import parse
from cluster.scheduler.place import refusal
from cluster.scheduler.policies import POLICIES
from cluster.scheduler.rank import best
from cluster.scheduler.types import Ask, MemberView
from tests.cluster.scheduler.builders import GIB, gpu, member, taken, want
from tests.cluster.scheduler.test_invariants import asks_and_members
from tests.effort import examples


def fits(ask: Ask, view: MemberView) -> bool:
    return refusal(ask, view) is None


def by_looking_at_all(ask: Ask, members: list[MemberView], policy: str) -> MemberView | None:
    def score(view: MemberView) -> tuple[float, ...]:
        free = {gpu.uuid for each in ask.gpus for gpu in usable(each, view.gpus)}
        return POLICIES[policy](len(free), ask, view)

    return min((view for view in members if fits(ask, view)), key=score, default=None)


@examples(200)
@given(asks_and_members(), st.sampled_from(sorted(POLICIES)), st.booleans())
def test_it_is_the_first_with_the_lowest_score(
    case: tuple[Ask, list[MemberView]], policy: str, holds: bool
) -> None:
    ask, members = case
    if holds:  # it may keep what it has, even what nobody would get anew
        mine = tuple(gpu.uuid for view in members for gpu in view.gpus[:2])
        ask = msgspec.structs.replace(
            ask, gpus=tuple(msgspec.structs.replace(each, held=mine) for each in ask.gpus)
        )
    found = best(ask, members, POLICIES[policy], lambda view: fits(ask, view))
    assert found == by_looking_at_all(ask, members, policy)


def test_free_gpus_that_do_not_fit_count_for_nothing() -> None:
    small = [gpu(number, memory=16 * GIB) for number in range(4)]
    members = [member("n1", [gpu(10), gpu(11)]), member("n2", [*small, gpu(20)])]
    ask = Ask(gpus=(want(match=parse("memory>=24GiB")),))
    for policy, name in (("pack", "n2"), ("spread", "n1"), ("spare-gpus", "n2")):
        found = best(ask, members, POLICIES[policy], lambda view: fits(ask, view))
        assert (found.name if found else None) == name, policy


def test_few_are_looked_at_closely() -> None:
    dice = Random(5)
    members = [
        member(f"n{m}", [(gpu if dice.random() < 0.5 else taken)(8 * m + g) for g in range(8)])
        for m in range(100)
    ]
    looked = []

    def look(view: MemberView) -> bool:
        looked.append(view.name)
        return fits(ask, view)

    for policy, score in POLICIES.items():
        ask = Ask(gpus=(want(2),))
        assert best(ask, members, score, look) == by_looking_at_all(ask, members, policy)
        assert len(looked) == 1, policy
        looked.clear()
    ask = Ask(gpus=(want(9),))
    assert best(ask, members, POLICIES["spread"], look) is None
    assert looked == [], "none has as many"
