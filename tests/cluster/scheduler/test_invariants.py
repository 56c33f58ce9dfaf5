"""What holds for every ask and every cluster."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Conflict, Exhausted, Invalid
from cluster.scheduler.gpus import choose, fit, refused_gpus, ungrantable
from cluster.scheduler.match import matching
from cluster.scheduler.place import place, refusal
from cluster.scheduler.policies import POLICIES
from cluster.scheduler.types import Ask, GpuAsk, GpuView, Hold, MemberView, Sharing, Term
from tests.cluster.scheduler.builders import GIB, gpu
from tests.effort import examples

TERMS = st.sampled_from(
    [
        Term("vendor", "=", "nvidia"),
        Term("memory", ">=", "24GiB"),
        Term("model", "~", "A"),
        Term("numa", "=", "0"),
    ]
)


def gpu_view(dice: Random, number: int) -> GpuView:
    state = dice.choice(["free", "free", "free", "exclusive", "shared", "draining", "missing", "conflict"])
    holders: tuple[Hold, ...] = ()
    if state == "exclusive":
        holders = (Hold("p/x", "exclusive"),)
    if state == "shared":
        holders = tuple(Hold(f"p/s{n}", "shared", 4 * GIB) for n in range(dice.randint(1, 4)))
    return gpu(
        number,
        state=state,
        holders=holders,
        memory=dice.choice([16, 24, 40]) * GIB,
        vendor=dice.choice(["nvidia", "amd"]),
        model=dice.choice(["A100", "MI210", "T4"]),
        numa=dice.randint(-1, 1),
        health=dice.choice(["ok", "ok", "ok", "ok", "suspect", "failed"]),
        links=tuple((f"GPU-{other:04d}", 100) for other in dice.sample(range(8), dice.randint(0, 2))),
    )


@st.composite
def gpu_asks(draw: st.DrawFn, device: str) -> GpuAsk:
    sharing: Sharing = draw(st.sampled_from(["exclusive", "exclusive", "shared"]))
    terms = tuple(draw(st.lists(TERMS, max_size=2, unique=True)))
    if draw(st.integers(0, 9)) == 0:
        return GpuAsk(device=device, count=0, match=terms, sharing="shared")
    memory = draw(st.sampled_from([0, 0, 8, 20])) * GIB
    return GpuAsk(device=device, count=draw(st.integers(1, 4)), match=terms, sharing=sharing, memory=memory)


@st.composite
def asks_and_members(draw: st.DrawFn) -> tuple[Ask, list[MemberView]]:
    asks = tuple(draw(gpu_asks(name)) for name in "abc"[: draw(st.integers(0, 3))])
    dice = Random(draw(st.integers(0, 2**32)))  # drawing every GPU's facts takes ten times as long
    members = [
        MemberView(
            name=f"n{m}",
            online=dice.random() < 0.75,
            scheduling=dice.choice(["all", "all", "all", "group", "manual"]),
            instances=dice.randint(0, 5),
            architecture="x86_64",
            gpus=tuple(gpu_view(dice, 8 * m + g) for g in range(draw(st.integers(0, 6)))),
        )
        for m in range(draw(st.integers(0, 3)))
    ]
    return Ask(gpus=asks, architecture=draw(st.sampled_from(["", "x86_64"]))), members


@examples(400)
@given(asks_and_members(), st.sampled_from(sorted(POLICIES)), st.randoms(use_true_random=False))
def test_a_placement_keeps_every_rule_or_every_member_has_a_reason(
    case: tuple[Ask, list[MemberView]], policy: str, random: Random
) -> None:
    ask, members = case
    try:
        found = place(ask, members, policy)
    except Invalid:
        everything = [view for member in members for view in member.gpus]
        assert any(not each.count and not matching(each.match, everything) for each in ask.gpus)
        return
    except (Exhausted, Conflict) as error:
        reasons = error.facts
        assert reasons == {member.name: refusal(ask, member) for member in members}
        assert all(reasons.values())
        return
    best = next(member for member in members if member.name == found.member)
    assert refusal(ask, best) is None
    assert ungrantable(ask.gpus, found.gpus, best.gpus) is None
    shuffled = list(members)
    random.shuffle(shuffled)
    assert place(ask, shuffled, policy) == found


@examples(400)
@given(asks_and_members())
def test_nobody_gets_more_than_asked_or_what_is_not_free(case: tuple[Ask, list[MemberView]]) -> None:
    ask, members = case
    for member in members:
        found = choose(ask.gpus, member.gpus)
        assert (
            (found is None)
            == (not fit(ask.gpus, member.gpus))
            == (refused_gpus(ask.gpus, member.gpus) is not None)
        )
        if found is None:
            continue
        assert set(found) == {each.device for each in ask.gpus}
        users = Counter(uuid for each in ask.gpus if each.count for uuid in found[each.device])
        assert all(count == 1 for count in users.values())
        here = {view.uuid: view for view in member.gpus}
        for each in ask.gpus:
            for uuid in found[each.device]:
                assert here[uuid].health == "ok"
                assert here[uuid].state in (("free",) if each.sharing == "exclusive" else ("free", "shared"))
                reserved = sum(hold.memory for hold in here[uuid].holders)
                assert each.memory + reserved <= here[uuid].memory


@examples(300)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=3))
def test_whoever_could_be_served_is_served(table: list[list[bool]]) -> None:
    """Against trying all assignments: one device a row, and the GPUs that will do for it."""
    gpus = [gpu(n) for n in range(4)]
    asks = [
        GpuAsk(
            device=str(place),
            uuids=tuple(g.uuid for g, fits in zip(gpus, row, strict=True) if fits) or ("no",),
        )
        for place, row in enumerate(table)
    ]
    assert fit(asks, gpus) == _assignable(table, frozenset())
    assert (choose(asks, gpus) is not None) == fit(asks, gpus)


def _assignable(table: list[list[bool]], used: frozenset[int]) -> bool:
    if not table:
        return True
    return any(
        fits and n not in used and _assignable(table[1:], used | {n}) for n, fits in enumerate(table[0])
    )
