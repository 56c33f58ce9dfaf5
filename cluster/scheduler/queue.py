"""plan(): who of those that wait for GPUs is served now, and which GPUs are kept for the first that is not.

In order of priority, then of arrival. The first that cannot be served (the head) has the GPUs of a member
kept for it, those too that are still held: as they come free nobody behind it gets them, so it is served no
later than that member is free, whatever goes on elsewhere. With GPUs that are not kept, later ones may pass
it. It keeps the same member for as long as that could serve it; who could be served nowhere, even if all
holders left, keeps nothing and delays nobody.

Instances of one request are placed one after the other, and granted all or none.

A plan for a large cluster takes a while. So it is made in steps (`planning`), between which its maker may do
something else; and why somebody is not served is found out when it is asked (`Whys`).
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from cluster.errors import Error
from cluster.scheduler.eligible import usable
from cluster.scheduler.place import place, refusal, seek
from cluster.scheduler.policies import DEFAULT
from cluster.scheduler.types import Ask, GpuView, Hold, MemberView, Placement

replace = msgspec.structs.replace
Made = TypeVar("Made")
Work = Generator[None, None, Made]
BEFORE = "an instance that is before it in the queue"
ABREAST = 50  # members that are looked at in one step; 5 ms


class Waiter(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits: for one instance, or for several at once."""

    id: str
    asks: tuple[Ask, ...]
    label: str = ""  # who it is, in words for users
    policy: str = DEFAULT
    project: str = ""
    priority: int = 0  # the higher, the earlier
    since: int = 0  # when it came: place in the log
    keeps: tuple[str, ...] = ()  # uuids that are kept for it so far


class _Refused:
    """Who found no place among these members; the words are kept."""

    def __init__(self, waiter: Waiter, members: Sequence[MemberView]) -> None:
        self.asks = waiter.asks
        self._policy = waiter.policy
        self._members = members
        self._said = ""

    def why(self, shown: Callable[[MemberView], MemberView]) -> str:
        if not self._said:
            try:
                together(self.asks, [shown(member) for member in self._members], self._policy)
            except Error as error:
                self._said = error.message
        return self._said


class Whys(Mapping[str, str]):
    """By the id of one that waits: why it is not served, in words made when they are asked for."""

    def __init__(self, shown: Callable[[MemberView], MemberView]) -> None:
        self._shown = shown
        self._known: dict[str, str | _Refused] = {}

    def note(self, id: str, why: str | _Refused) -> None:
        self._known[id] = why

    def __getitem__(self, id: str) -> str:
        known = self._known[id]
        return known if isinstance(known, str) else known.why(self._shown)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class Plan(msgspec.Struct, frozen=True):
    """`grants`: who is served, in order, with a placement for each of its asks. `why` the others are not."""

    grants: dict[str, tuple[Placement, ...]]
    why: Mapping[str, str]
    head: str = ""  # whom GPUs are kept for; "" for nobody
    kept: tuple[str, ...] = ()  # their uuids, sorted


def drained(work: Work[Made]) -> Made:
    """Do all of it at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Made = end.value
            return made


def ordered(waiters: Iterable[Waiter]) -> list[Waiter]:
    return sorted(waiters, key=lambda waiter: (-waiter.priority, waiter.since, waiter.id))


def plan(
    waiters: Iterable[Waiter], members: Iterable[MemberView], allowed: Mapping[str, int] | None = None
) -> Plan:
    """All of `planning` at once."""
    return drained(planning(waiters, members, allowed or {}))


def planning(
    waiters: Iterable[Waiter],
    members: Iterable[MemberView],
    allowed: Mapping[str, int],
    shown: Callable[[MemberView], MemberView] = lambda member: member,
) -> Work[Plan]:
    """`allowed`: how many GPUs more a project may hold; any number, if it is not named there. `shown`:
    members as those may see them who are told why they wait.

    Who is over that waits for its own project, and so delays nobody. Who asks for just what somebody before
    was refused is refused as well, unseen: while a plan is made there is ever less.
    """
    seen = behind = sorted(members, key=lambda member: member.name)
    left = dict(allowed)
    grants: dict[str, tuple[Placement, ...]] = {}
    why, refused = Whys(shown), list[_Refused]()
    head, kept = "", frozenset[str]()
    for waiter in ordered(waiters):
        known = next((one for one in refused if one.asks == waiter.asks), None)
        if why_not := _over(waiter, left, least(waiter.asks)) or known:
            why.note(waiter.id, why_not)
            continue
        yield
        found = yield from _attempt(waiter, behind)
        if found is None:
            refused.append(_Refused(waiter, behind))
            why.note(waiter.id, refused[-1])
            if not kept and (kept := (yield from _keeping(waiter, seen))):
                head, behind = waiter.id, hidden(seen, dict.fromkeys(kept, waiter.label or waiter.id))
            continue
        number = sum(len(uuids) for placement in found for uuids in placement.gpus.values())
        if why_not := _over(waiter, left, number):
            why.note(waiter.id, why_not)
            continue
        grants[waiter.id] = found
        if waiter.project in left:
            left[waiter.project] -= number
        for ask, placement in zip(waiter.asks, found, strict=True):
            seen, behind = taken(seen, ask, placement), taken(behind, ask, placement)
    return Plan(grants, why, head, tuple(sorted(kept)))


def _attempt(waiter: Waiter, members: Sequence[MemberView]) -> Work[tuple[Placement, ...] | None]:
    """A place for each of its asks, all at once; None if there are none."""
    found = []
    for number, ask in enumerate(waiter.asks):
        if number:
            yield
        try:
            placement = seek(ask, members, waiter.policy)
        except Error:
            return None
        if placement is None:
            return None
        members = taken(members, ask, placement)
        found.append(placement)
    return tuple(found)


def _over(waiter: Waiter, left: Mapping[str, int], number: int) -> str:
    if number <= left.get(waiter.project, number):
        return ""
    room = max(left[waiter.project], 0)
    return f"project {waiter.project} may hold {room} more GPU{'s' * (room != 1)}, {number} wanted"


def least(asks: Iterable[Ask]) -> int:
    """How many GPUs they take at the least."""
    return sum(gpu.count or 1 for ask in asks for gpu in ask.gpus)


def together(asks: Iterable[Ask], members: Sequence[MemberView], policy: str) -> tuple[Placement, ...]:
    """A place for each of the asks, all at once. Raises what `place` raises for the first that has none."""
    found = []
    for ask in asks:
        placement = place(ask, members, policy)
        members = taken(members, ask, placement)
        found.append(placement)
    return tuple(found)


def taken(members: Sequence[MemberView], ask: Ask, placement: Placement) -> list[MemberView]:
    """As they are once `ask` has been granted so."""
    by_uuid = {uuid: gpu for gpu in ask.gpus for uuid in placement.gpus.get(gpu.device, ())}

    def after(view: GpuView) -> GpuView:
        gpu = by_uuid.get(view.uuid)
        if gpu is None:
            return view
        memory = gpu.memory if gpu.sharing == "shared" else 0
        return replace(view, state=gpu.sharing, holders=(*view.holders, Hold(BEFORE, gpu.sharing, memory)))

    found = list(members)
    place = next(place for place, member in enumerate(found) if member.name == placement.member)
    member = found[place]
    found[place] = replace(member, instances=member.instances + 1, gpus=tuple(map(after, member.gpus)))
    return found


def hidden(members: Iterable[MemberView], kept: Mapping[str, str]) -> list[MemberView]:
    """As they are for those for whom these GPUs are not kept; `kept` says for whom, in words for users."""
    if not kept:
        return list(members)

    def seen(view: GpuView) -> GpuView:
        if view.uuid not in kept:
            return view
        return replace(view, holders=(*view.holders, Hold(f"the queue, for {kept[view.uuid]}", "exclusive")))

    return [
        replace(member, gpus=tuple(map(seen, member.gpus)))
        if any(gpu.uuid in kept for gpu in member.gpus)
        else member
        for member in members
    ]


def keep(waiter: Waiter, members: Sequence[MemberView]) -> frozenset[str]:
    """The GPUs to be kept for it: of the members that could serve it if all holders left, those that it has
    kept already, then those with most free. Empty if there are none.
    """
    return drained(_keeping(waiter, members))


def _keeping(waiter: Waiter, members: Sequence[MemberView]) -> Work[frozenset[str]]:
    had = set(waiter.keeps)
    known = [member for member in members if any(gpu.uuid in had for gpu in member.gpus)] if had else []
    if known and (kept := (yield from _kept_of(waiter, known))):
        return kept
    yield
    return (yield from _kept_of(waiter, members))


def _kept_of(waiter: Waiter, members: Sequence[MemberView]) -> Work[frozenset[str]]:
    """As many of these members as it needs; those with GPUs that it has kept come first."""
    empty, rank, had = list[MemberView](), dict[str, tuple[bool, int]](), set(waiter.keeps)
    for number, each in enumerate(members, 1):
        if _takes(waiter, member := emptied(each)):
            empty.append(member)
            rank[each.name] = (not any(gpu.uuid in had for gpu in each.gpus), -_free(waiter, each))
        if number % ABREAST == 0:
            yield
    empty.sort(key=lambda member: (rank[member.name], member.name))
    if not empty or not fits(waiter, empty):
        return frozenset()
    enough = range(1, len(empty) + 1)[
        bisect_left(range(1, len(empty)), True, key=lambda number: fits(waiter, empty[:number]))
    ]
    return frozenset(
        gpu.uuid
        for member in empty[:enough]
        for ask in waiter.asks
        for each in ask.gpus
        for gpu in usable(each, member.gpus)
    )


def possible(waiter: Waiter, members: Iterable[MemberView]) -> bool:
    """Whether it could be served if all holders left, and all members and GPUs were well."""
    best = [
        replace(
            emptied(member),
            online=True,
            evacuated=False,
            gpus=tuple(
                replace(gpu, health="ok", holders=(), state="free")
                for gpu in member.gpus
                if gpu.state != "partitioned"
            ),
        )
        for member in members
    ]
    return fits(waiter, best)


def able(ask: Ask, members: Iterable[MemberView]) -> tuple[str, ...]:
    """Names of those that could serve it one day."""
    waiter = Waiter(id="", asks=(ask,))
    return tuple(member.name for member in members if possible(waiter, [member]))


def fits(waiter: Waiter, members: Sequence[MemberView]) -> bool:
    return drained(_attempt(waiter, members)) is not None


def emptied(member: MemberView) -> MemberView:
    """As it would be if all holders left; what is ill, drained or gone stays so."""
    return replace(
        member,
        gpus=tuple(
            replace(gpu, holders=(), state="free" if gpu.state in ("exclusive", "shared") else gpu.state)
            for gpu in member.gpus
        ),
    )


def _takes(waiter: Waiter, member: MemberView) -> bool:
    return any(refusal(ask, member) is None for ask in waiter.asks)


def _free(waiter: Waiter, member: MemberView) -> int:
    return len({gpu.uuid for ask in waiter.asks for each in ask.gpus for gpu in usable(each, member.gpus)})
