"""The queue for GPUs: in order, past the head only with what is not kept for it, and everybody in the end."""

from collections.abc import Iterable
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduler.gpus import ungrantable
from cluster.scheduler.match import parse
from cluster.scheduler.place import refusal
from cluster.scheduler.queue import Plan, Waiter, hidden, keep, ordered, plan, possible, taken
from cluster.scheduler.types import Ask, GpuView, Hold, MemberView
from tests.cluster.scheduler.builders import gpu, member, want
from tests.cluster.scheduler.builders import taken as held
from tests.effort import examples

replace = msgspec.structs.replace


def waiter(id: str, count: int = 1, *, times: int = 1, since: int = 0, **known: object) -> Waiter:
    ask = Ask(gpus=(want(count),))
    return Waiter(**{"id": id, "asks": (ask,) * times, "since": since, **known})  # type: ignore[arg-type]


def members(*busy: int, each: int = 2) -> list[MemberView]:
    """One for each number, with so many of its GPUs held."""
    found = []
    for place, number in enumerate(busy):
        own = range(place * each, place * each + each)
        views = [held(n) if at < number else gpu(n) for at, n in enumerate(own)]
        found.append(member(f"n{place}", views))
    return found


def where(found: Plan) -> dict[str, list[str]]:
    return {id: [placed.member for placed in places] for id, places in found.grants.items()}


def test_the_higher_priority_is_first_then_who_came_first() -> None:
    late = [waiter("a", since=3), waiter("b", since=2), waiter("c", since=9, priority=1)]
    assert [one.id for one in ordered(late)] == ["c", "b", "a"]
    found = plan(late, members(1, each=2))
    assert where(found) == {"c": ["n0"]}
    assert found.head == "b"


def test_what_is_kept_for_the_head_is_not_for_who_is_behind() -> None:
    found = plan([waiter("big", 2, since=1), waiter("small", since=2)], members(1, 2))
    assert (found.grants, found.head) == ({}, "big")
    assert found.kept == ("GPU-0000", "GPU-0001"), "the member with most free, all of it"
    assert "0 of" in found.why["small"]


def test_who_is_behind_may_pass_with_what_is_not_kept() -> None:
    found = plan([waiter("big", 2, since=1), waiter("small", since=2)], members(1, 1))
    assert where(found) == {"small": ["n1"]}
    assert found.head == "big"


def test_the_head_keeps_its_member_though_another_comes_nearer() -> None:
    first = waiter("big", 4, since=1)
    kept = tuple(plan([first], members(2, 3, each=4)).kept)
    assert kept[0] == "GPU-0000"
    again = plan([replace(first, keeps=kept)], members(2, 1, each=4))
    assert again.kept == kept
    gone = [replace(one, online=one.name != "n0") for one in members(2, 1, each=4)]
    assert plan([replace(first, keeps=kept)], gone).kept[0] == "GPU-0004"


def test_who_fits_nowhere_even_if_all_left_keeps_nothing() -> None:
    found = plan([waiter("huge", 3, since=1), waiter("small", since=2)], members(1, 1))
    assert (found.head, where(found)) == ("", {"small": ["n0"]})
    assert not possible(waiter("huge", 3), members(0))
    assert possible(waiter("big", 2), [replace(members(2)[0], online=False)])


def test_who_waits_for_its_own_project_delays_nobody() -> None:
    late = [waiter("a", 2, since=1, project="lab"), waiter("b", 2, since=2)]
    found = plan(late, members(0), {"lab": 1})
    assert where(found) == {"b": ["n0"]}
    assert found.why["a"] == "project lab may hold 1 more GPU, 2 wanted"
    both = [waiter("a", since=1, project="lab"), waiter("b", since=2, project="lab")]
    assert where(plan(both, members(0), {"lab": 1})) == {"a": ["n0"]}


def test_a_group_is_served_whole_or_not() -> None:
    late = [waiter("group", 2, times=3, since=1)]
    assert plan(late, members(0, 0, 1)).grants == {}
    assert sorted(where(plan(late, members(0, 0, 0)))["group"]) == ["n0", "n1", "n2"]
    assert len(plan(late, members(2, 2, 2, 0)).kept) == 6, "as many members as it needs, and no more"


def test_kinds_that_the_head_does_not_want_are_not_kept() -> None:
    mixed = [member("n0", [held(0), gpu(1, model="T4", vendor="amd")])]
    late = [
        Waiter(id="a", asks=(Ask(gpus=(want(match=parse("vendor=nvidia")),)),), since=1),
        Waiter(id="b", asks=(Ask(gpus=(want(match=parse("vendor=amd")),)),), since=2),
    ]
    found = plan(late, mixed)
    assert (where(found), found.kept) == ({"b": ["n0"]}, ("GPU-0000",))


def scene(dice: Random) -> tuple[list[MemberView], list[Waiter]]:
    """Members of which some GPUs are held or ill, and who waits."""
    found = []
    for m in range(dice.randint(1, 4)):
        views = []
        for g in range(dice.randint(1, 4)):
            known = {"model": dice.choice(["A100", "T4"]), "health": dice.choice(["ok"] * 7 + ["failed"])}
            busy = dice.random() < 0.6
            views.append(held(8 * m + g, f"h{m}{g}", **known) if busy else gpu(8 * m + g, **known))
        found.append(member(f"n{m}", views, online=dice.random() < 0.9))
    return found, [newcomer(dice, n) for n in range(dice.randint(1, 6))]


def newcomer(dice: Random, number: int) -> Waiter:
    match = parse(dice.choice(["model~A100", "model~T4", "vendor=nvidia"]))
    ask = Ask(gpus=(want(dice.randint(1, 3), match=match),))
    times = dice.choice([1, 1, 1, 2, 3])
    return Waiter(
        id=f"w{number:03}", asks=(ask,) * times, since=number, priority=dice.choice([0, 0, 0, 5]),
        project=dice.choice(["p", "q"]),
    )  # fmt: skip


@examples(300)
@given(st.integers(0, 2**32))
def test_every_plan_can_be_granted_and_respects_who_is_first(seed: int) -> None:
    """I1, I7, I8 and I9 of one plan."""
    seen, late = scene(Random(seed))
    allowed = {"p": Random(seed).randint(0, 5)}
    found = plan(late, seen, allowed)
    assert set(found.grants) | set(found.why) == {one.id for one in late}
    assert not set(found.grants) & set(found.why)
    by_id, taken_by_p, order = {one.id: one for one in late}, 0, ordered(late)
    now = seen
    for id, places in found.grants.items():
        one = by_id[id]
        assert len(places) == len(one.asks)
        for ask, place in zip(one.asks, places, strict=True):
            home = next(each for each in now if each.name == place.member)
            assert refusal(ask, home) is None
            assert ungrantable(ask.gpus, place.gpus, home.gpus) is None
            now = taken(now, ask, place)
            if found.head and order.index(one) > order.index(by_id[found.head]):
                assert not {uuid for uuids in place.gpus.values() for uuid in uuids} & set(found.kept)
        if one.project == "p":
            taken_by_p += sum(gpus.count for ask in one.asks for gpus in ask.gpus)
    assert taken_by_p <= allowed["p"]
    assert list(found.grants) == [one.id for one in order if one.id in found.grants]
    if found.head:
        before = order[: order.index(by_id[found.head])]
        assert all(one.id in found.grants or not keep(one, seen) or one.project == "p" for one in before)
    assert plan(reversed(late), list(reversed(seen)), allowed) == found


@examples(60)
@given(st.integers(0, 2**32))
def test_everybody_is_served_however_many_come_after(seed: int) -> None:
    """I9: while others with less to ask for keep coming, and holders leave one by one, in any order."""
    dice = Random(seed)
    seen = members(*[dice.randint(0, 3) for _ in range(3)], each=3)
    late = [waiter("big", 3, since=0), waiter("group", 2, times=2, since=1)]
    number, served, kept_on = 2, set[str](), ""
    for _ in range(120):
        late.append(waiter(f"s{number}", dice.randint(1, 2), since=number))
        number += 1
        found = plan(late, seen)
        if found.head == "big":
            at = {one.name for one in seen if {view.uuid for view in one.gpus} & set(found.kept)}
            assert kept_on in ("", min(at)), "it stays where it is"
            kept_on = min(at)
        for id, places in found.grants.items():
            one = next(each for each in late if each.id == id)
            for ask, place in zip(one.asks, places, strict=True):
                seen = taken(seen, ask, place)
            late.remove(one)
            served.add(id)
        late = [replace(one, keeps=found.kept if one.id == found.head else ()) for one in late]
        if {"big", "group"} <= served:
            return
        seen = leave(seen, dice)
    raise AssertionError(f"after 120 holders have left: {served}")


def leave(seen: Iterable[MemberView], dice: Random) -> list[MemberView]:
    """The holder of one GPU that is held leaves."""
    everyone = list(seen)
    busy = [view.uuid for each in everyone for view in each.gpus if view.holders]
    gone = dice.choice(busy) if busy else ""

    def after(view: GpuView) -> GpuView:
        return replace(view, holders=(), state="free") if view.uuid == gone else view

    return [replace(each, gpus=tuple(map(after, each.gpus))) for each in everyone]


def test_what_is_kept_counts_as_held_for_the_others() -> None:
    [seen] = hidden(members(0), {"GPU-0000": "c5"})
    assert seen.gpus[0].holders == (Hold("the queue, for c5", "exclusive"),)
    assert seen.gpus[1].holders == ()
