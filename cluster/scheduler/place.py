"""place(): the scheduler. refusal(): its hard rules alone, for the apply that records what it chose."""

from collections.abc import Callable, Iterable, Sequence

from cluster.errors import Conflict, Exhausted, Invalid, NotFound
from cluster.scheduler.eligible import asked, cdi_names, held, models, wanted
from cluster.scheduler.filters import FILTERS
from cluster.scheduler.gpus import choose
from cluster.scheduler.policies import DEFAULT, POLICIES
from cluster.scheduler.rank import best
from cluster.scheduler.types import Ask, GpuAsk, MemberView, Placement

Refusal = Callable[[Ask, MemberView], str | None]


class NoMemberFits(Exhausted):
    """Every member was refused; the message says why, member by member, and so do the facts."""


class GpuHeld(Conflict):
    """The GPUs that were named are held by somebody else; the facts map each member to who it is."""


class NoSuchGpu(Invalid):
    """A selector names a GPU that no member has, online or not, free or not."""


class NoSuchMember(NotFound):
    """The target of the request."""


def refusal(ask: Ask, member: MemberView) -> str | None:
    """Why `member` cannot hold `ask`, in words for users, or None."""
    return next((why for rule in FILTERS if (why := rule(ask, member))), None)


def place(
    ask: Ask, members: Iterable[MemberView], policy: str = DEFAULT, refusal: Refusal = refusal
) -> Placement:
    """Choose a member and its GPUs. Ties go to the lowest name, so the answer depends on the arguments only.

    Who knows already whom the hard rules refuse, tells it by `refusal`.

    Raises NoMemberFits, or GpuHeld if only the holders of the GPUs named are in the way; NoSuchGpu,
    NoSuchMember, and Invalid for an unknown policy.
    """
    everyone = sorted(members, key=lambda member: member.name)
    if found := seek(ask, everyone, policy, refusal):
        return found
    candidates = _candidates(ask, everyone)
    reasons = {member.name: why for member in candidates if (why := refusal(ask, member))}
    raise _refused(ask, candidates, reasons)


def seek(
    ask: Ask, everyone: Sequence[MemberView], policy: str = DEFAULT, refusal: Refusal = refusal
) -> Placement | None:
    """`place`, of members by name, but None where nobody fits: to say why takes longer than to find out.

    Raises NoSuchGpu, NoSuchMember, Invalid.
    """
    if policy not in POLICIES:
        raise Invalid(f'Unknown placement policy "{policy}"; known are: {", ".join(sorted(POLICIES))}')
    require_known(ask.gpus, everyone)
    candidates = _candidates(ask, everyone)
    if ask.target and not candidates:
        raise NoSuchMember(f"Member not found: {ask.target}", member=ask.target)
    found = best(ask, candidates, POLICIES[policy], lambda member: refusal(ask, member) is None)
    return Placement(found.name, choose(ask.gpus, found.gpus) or {}) if found else None


def _candidates(ask: Ask, everyone: Sequence[MemberView]) -> list[MemberView]:
    return [member for member in everyone if ask.target in (None, "", member.name)]


def require_known(asks: Iterable[GpuAsk], members: Sequence[MemberView]) -> None:
    """Raises NoSuchGpu for a device that takes GPUs by selector, if none of any member fits the selector."""
    for ask in asks:
        if not ask.count and not any(wanted(ask, member.gpus) for member in members):
            gpus = [gpu for member in members for gpu in member.gpus]
            there = f"there are: {cdi_names(ask, gpus) or models(gpus)}" if gpus else "no member has a GPU"
            what = "MIG device" if ask.kind == "mig" else "GPU"
            raise NoSuchGpu(f"{ask.device}: no {what} matches {asked(ask)}; {there}", device=ask.device)


def _refused(ask: Ask, members: Sequence[MemberView], reasons: dict[str, str]) -> Exhausted | Conflict:
    listed = "; ".join(f"{member}: {why}" for member, why in reasons.items()) or "there are none"
    selectors = tuple(gpu_ask for gpu_ask in ask.gpus if not gpu_ask.count)
    having = [m for m in members if any(wanted(each, m.gpus) for each in selectors)]
    holders = {m.name: why for m in having if (why := _in_the_way(ask, m))}
    if having and len(holders) == len(having):
        return GpuHeld("; ".join(f"{member}: {why}" for member, why in holders.items()), **reasons)
    return NoMemberFits(f"No member fits: {listed}", **reasons)


def _in_the_way(ask: Ask, member: MemberView) -> str | None:
    """Who holds what the selectors name, if the member's refusal is due to that."""
    if refusal(Ask(architecture=ask.architecture, group=ask.group, target=ask.target), member):
        return None
    return next((why for each in ask.gpus if not each.count and (why := held(each, member.gpus))), None)
