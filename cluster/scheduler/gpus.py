"""Which GPUs of a member an instance gets, or why it gets none.

Counted devices of one instance get different GPUs. Whether there is room is answered exactly (a matching of
devices to GPUs), so nobody is refused who could be served; which of the possible GPUs are taken is a matter
of taste: those held before, then close to each other (NVLink, NUMA), then the smallest that will do, then
those whose loss breaks up the fewest links among the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import comb

from cluster.scheduler.eligible import by_address, held, shortage, unusable, usable, wanted
from cluster.scheduler.types import SAME_NUMA_NODE, GpuAsk, GpuView

MANY = 512  # sets of GPUs to score; 10 choose 5 is 252. Beyond it, grow a set step by step instead


def choose(asks: Sequence[GpuAsk], gpus: Sequence[GpuView]) -> dict[str, tuple[str, ...]] | None:
    """The uuids each device gets, or None if they cannot all be served. Depends on its arguments only."""
    gpus = sorted(gpus, key=by_address)
    fixed = _everything(asks, gpus)
    if fixed is None:
        return None
    counted = [ask for ask in asks if ask.count]
    options = _options(counted, gpus, _pinned(asks, fixed))
    chosen = {ask.device: () for ask in asks} | fixed
    pending = sorted(counted, key=lambda ask: (len(options[ask.device]) - ask.count, ask.device))
    while pending:
        ask = pending.pop(0)
        picked = _favourite(ask, options[ask.device], gpus)
        rest = {other.device: _without(options[other.device], picked) for other in pending}
        if picked is None or not _feasible(pending, rest):
            solved = _matched([ask, *pending], options)
            return None if solved is None else chosen | solved
        chosen[ask.device] = tuple(gpu.uuid for gpu in picked)
        options = rest
    return chosen


def fit(asks: Sequence[GpuAsk], gpus: Sequence[GpuView]) -> bool:
    """Whether `choose` would find a solution, without its trouble of finding a good one."""
    fixed = _everything(asks, gpus)
    if fixed is None:
        return False
    counted = [ask for ask in asks if ask.count]
    return _feasible(counted, _options(counted, gpus, _pinned(asks, fixed)))


def refused_gpus(asks: Sequence[GpuAsk], gpus: Sequence[GpuView]) -> str | None:
    """Why these GPUs cannot serve all of `asks`, in words for users, or None."""
    if len(asks) != 1 and fit(asks, gpus):
        return None
    if alone := next((why for ask in asks if (why := shortage(ask, gpus))), None):
        return alone
    if len(asks) == 1:
        return None
    devices = ", ".join(ask.device for ask in asks)
    return f"the GPUs wanted by {devices} are to be had one by one, but not all at once"


def ungrantable(
    asks: Sequence[GpuAsk], grants: Mapping[str, Sequence[str]], gpus: Iterable[GpuView]
) -> str | None:
    """Why these grants may not be recorded, or None: the check an apply makes of what somebody chose.

    Any choice that keeps the rules passes, whatever this version would have chosen.
    """
    here = {gpu.uuid: gpu for gpu in gpus}
    for ask in asks:
        granted = grants.get(ask.device, ())
        if len(set(granted)) != len(granted) or (len(granted) != ask.count if ask.count else not granted):
            return f"{ask.device}: {len(granted)} GPUs granted, {ask.count or 'all'} wanted"
        for uuid in granted:
            if uuid not in here:
                return f"GPU {uuid} is not there"
            if why := unusable(ask, here[uuid]):
                return why
            if not wanted(ask, [here[uuid]]):
                return f"{ask.device}: GPU {uuid} is not what was asked for"
    return _clash(asks, grants, here)


def _everything(asks: Iterable[GpuAsk], gpus: Sequence[GpuView]) -> dict[str, tuple[str, ...]] | None:
    """What the devices get that take all that matches: none if there is nothing, or somebody is in the way.

    A GPU that is ill, drained or gone is left out: nobody gets it, and the others are still all there are.
    """
    found: dict[str, tuple[str, ...]] = {}
    for ask in asks:
        if ask.count:
            continue
        if held(ask, gpus):
            return None
        found[ask.device] = tuple(gpu.uuid for gpu in usable(ask, gpus))
        if not found[ask.device]:
            return None
    return found


def _pinned(asks: Iterable[GpuAsk], fixed: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """By sharing, the uuids that this instance's other devices take in any case."""
    pinned: dict[str, set[str]] = {"exclusive": set(), "shared": set()}
    for ask in asks:
        pinned[ask.sharing].update(fixed.get(ask.device, ()))
    return pinned


def _options(
    asks: Iterable[GpuAsk], gpus: Sequence[GpuView], pinned: Mapping[str, set[str]]
) -> dict[str, list[GpuView]]:
    """What each counted device may choose from."""
    options = {}
    for ask in asks:
        barred = pinned["exclusive"] | (pinned["shared"] if ask.sharing == "exclusive" else set())
        options[ask.device] = [gpu for gpu in usable(ask, gpus) if gpu.uuid not in barred]
    return options


def _feasible(asks: Sequence[GpuAsk], options: Mapping[str, Sequence[GpuView]]) -> bool:
    if any(len(options[ask.device]) < ask.count for ask in asks):
        return False
    return len(asks) < 2 or _matched(asks, options) is not None


def _matched(
    asks: Sequence[GpuAsk], options: Mapping[str, Sequence[GpuView]]
) -> dict[str, tuple[str, ...]] | None:
    """Some assignment that serves every ask with GPUs of its own (augmenting paths), or None."""
    wants = [ask.device for ask in asks for _ in range(ask.count)]
    taken_by: dict[str, int] = {}  # uuid -> place in `wants`

    def assign(place: int, tried: set[str]) -> bool:
        for gpu in options[wants[place]]:
            if gpu.uuid in tried:
                continue
            tried.add(gpu.uuid)
            if gpu.uuid not in taken_by or assign(taken_by[gpu.uuid], tried):
                taken_by[gpu.uuid] = place
                return True
        return False

    if not all(assign(place, set()) for place in range(len(wants))):
        return None
    found: dict[str, tuple[str, ...]] = {ask.device: () for ask in asks}
    for uuid, place in sorted(taken_by.items()):
        found[wants[place]] += (uuid,)
    return found


def _without(gpus: Iterable[GpuView], taken: Iterable[GpuView] | None) -> list[GpuView]:
    gone = {gpu.uuid for gpu in taken or ()}
    return [gpu for gpu in gpus if gpu.uuid not in gone]


def _favourite(
    ask: GpuAsk, options: Sequence[GpuView], gpus: Sequence[GpuView]
) -> tuple[GpuView, ...] | None:
    """The set of `ask.count` GPUs we like best; of equals the first in order of PCI address."""
    if len(options) < ask.count:
        return None
    near = _closeness(gpus)
    if comb(len(options), ask.count) <= MANY:
        return min(combinations(options, ask.count), key=lambda picked: _taste(ask, picked, options, near))
    grown: list[tuple[GpuView, ...]] = []
    for seed in options:
        picked: tuple[GpuView, ...] = (seed,)
        while len(picked) < ask.count:
            picked = min(
                (tuple(sorted((*picked, gpu), key=by_address)) for gpu in _without(options, picked)),
                key=lambda wider: _taste(ask, wider, options, near),
            )
        grown.append(picked)
    return min(grown, key=lambda picked: _taste(ask, picked, options, near))


def _closeness(gpus: Sequence[GpuView]) -> dict[tuple[str, str], int]:
    """How close any two GPUs are; links count both ways, also when only one side announces them."""
    near: dict[tuple[str, str], int] = {}
    for gpu in gpus:
        for other, weight in gpu.links:
            for pair in ((gpu.uuid, other), (other, gpu.uuid)):
                near[pair] = max(near.get(pair, 0), weight)
    for one, two in combinations(gpus, 2):
        if one.numa == two.numa != -1:
            for pair in ((one.uuid, two.uuid), (two.uuid, one.uuid)):
                near[pair] = near.get(pair, 0) + SAME_NUMA_NODE
    return near


def _taste(
    ask: GpuAsk, picked: Sequence[GpuView], options: Sequence[GpuView], near: Mapping[tuple[str, str], int]
) -> tuple[float, ...]:
    """Lower is better."""
    chosen = {gpu.uuid for gpu in picked}
    inside = sum(near.get((a.uuid, b.uuid), 0) for a, b in combinations(picked, 2))
    broken = sum(near.get((a.uuid, b.uuid), 0) for a in picked for b in options if b.uuid not in chosen)
    return (-len(chosen.intersection(ask.prefer)), *_company(ask, picked), -inside, _bulk(picked), broken)


def _company(ask: GpuAsk, picked: Sequence[GpuView]) -> tuple[float, ...]:
    """Sharers who reserve memory fill one GPU after another; those who do not are kept apart."""
    if ask.sharing == "exclusive":
        return ()
    holders = sum(len(gpu.holders) for gpu in picked)
    return (
        (-sum(hold.memory for gpu in picked for hold in gpu.holders), holders) if ask.memory else (holders,)
    )


def _bulk(picked: Sequence[GpuView]) -> int:
    return sum(gpu.memory for gpu in picked)


def _clash(
    asks: Sequence[GpuAsk], grants: Mapping[str, Sequence[str]], here: Mapping[str, GpuView]
) -> str | None:
    """What is wrong between devices of one instance."""
    users: dict[str, list[GpuAsk]] = {}
    for ask in asks:
        for uuid in grants.get(ask.device, ()):
            users.setdefault(uuid, []).append(ask)
    for uuid, together in users.items():
        if len(together) < 2:
            continue
        if any(ask.sharing == "exclusive" for ask in together):
            return f"GPU {uuid} is granted to two devices of the instance, to one of them exclusively"
        held_memory = sum(hold.memory for hold in here[uuid].holders)
        if sum(ask.memory for ask in together) > max(here[uuid].memory - held_memory, 0):
            return f"GPU {uuid} has not the memory for all devices of the instance"
    return None
