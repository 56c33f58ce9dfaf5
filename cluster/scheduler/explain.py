"""explain(): what `place` would do, and why not otherwise: a reason for every member and every GPU."""

from collections.abc import Iterable

import msgspec

from cluster.errors import Error
from cluster.scheduler.eligible import by_address, short, unusable, wanted
from cluster.scheduler.filters import FILTERS
from cluster.scheduler.filters import gpus as enough
from cluster.scheduler.place import place
from cluster.scheduler.policies import DEFAULT
from cluster.scheduler.types import Ask, GpuAsk, GpuView, MemberView, Placement

ANOTHER = "not asked for"


class GpuAnswer(msgspec.Struct, frozen=True, gc=False):
    """One GPU, for each device that wants some: "" if it could be had, else why not."""

    uuid: str
    pci: str
    model: str
    state: str
    devices: dict[str, str]


class MemberAnswer(msgspec.Struct, frozen=True):
    """One member: "" if it could take the instance, else why not."""

    name: str
    why_not: str
    gpus: tuple[GpuAnswer, ...]


class Explanation(msgspec.Struct, frozen=True):
    """`placement`, or the error that `place` raises."""

    placement: Placement | None
    error: Error | None
    members: tuple[MemberAnswer, ...]  # by name


def explain(ask: Ask, members: Iterable[MemberView], policy: str = DEFAULT) -> Explanation:
    """Raises nothing: what is wrong with the ask is the answer."""
    everyone = sorted(members, key=lambda member: member.name)
    answers = tuple(_member(ask, member) for member in everyone)
    known = {answer.name: answer.why_not for answer in answers}
    try:
        placement = place(ask, everyone, policy, lambda _, member: known[member.name] or None)
        return Explanation(placement, None, answers)
    except Error as refused:
        return Explanation(None, refused, answers)


def _member(ask: Ask, member: MemberView) -> MemberAnswer:
    gpus = sorted(member.gpus, key=by_address) if ask.gpus else []
    why_not = next((why for rule in FILTERS if rule is not enough and (why := rule(ask, member))), None)
    if len(ask.gpus) != 1:
        by_device = {each.device: _answers(each, wanted(each, gpus)) for each in ask.gpus}
        why_not = why_not or enough(ask, member)
        found = [
            _gpu(gpu, {device: whys.get(gpu.uuid, ANOTHER) for device, whys in by_device.items()})
            for gpu in gpus
        ]
        return MemberAnswer(member.name, why_not or "", tuple(found))
    [each] = ask.gpus
    named = wanted(each, gpus)
    whys = _answers(each, named)
    why_not = why_not or short(each, gpus, named, [why or None for why in whys.values()])
    found = [_gpu(gpu, {each.device: whys.get(gpu.uuid, ANOTHER)}) for gpu in gpus]
    return MemberAnswer(member.name, why_not or "", tuple(found))


def _answers(ask: GpuAsk, named: Iterable[GpuView]) -> dict[str, str]:
    """By uuid, in order: why each of those that the ask names may not be had, "" if it may."""
    return {gpu.uuid: unusable(ask, gpu) or "" for gpu in named}


def _gpu(gpu: GpuView, devices: dict[str, str]) -> GpuAnswer:
    return GpuAnswer(gpu.uuid, gpu.pci, gpu.model, gpu.state, devices)
