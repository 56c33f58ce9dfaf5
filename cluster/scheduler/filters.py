"""Hard rules: why a member cannot hold an instance, whatever the others look like. In order of use."""

from collections.abc import Callable

from cluster.scheduler.gpus import refused_gpus
from cluster.scheduler.types import Ask, MemberView

Filter = Callable[[Ask, MemberView], str | None]


def target(ask: Ask, member: MemberView) -> str | None:
    return f"{ask.target} is asked for" if ask.target and ask.target != member.name else None


def online(ask: Ask, member: MemberView) -> str | None:
    return None if member.online else "offline"


def evacuated(ask: Ask, member: MemberView) -> str | None:
    return "evacuated" if member.evacuated else None


def scheduling(ask: Ask, member: MemberView) -> str | None:
    """`scheduler.instance`: what is named by the user is allowed in any mode."""
    if ask.target == member.name or member.scheduling == "all":
        return None
    if member.scheduling == "manual":
        return "takes instances only by its name (scheduler.instance=manual)"
    return None if ask.group else "takes instances only by its groups (scheduler.instance=group)"


def group(ask: Ask, member: MemberView) -> str | None:
    return f"not in group {ask.group}" if ask.group and ask.group not in member.groups else None


def architecture(ask: Ask, member: MemberView) -> str | None:
    if not ask.architecture or not member.architecture or ask.architecture == member.architecture:
        return None
    return f"{member.architecture}, not {ask.architecture}"


def only(ask: Ask, member: MemberView) -> str | None:
    missing = [what for what, names in sorted(ask.only.items()) if member.name not in names]
    return f"has no {missing[0]}" if missing else None


def gpus(ask: Ask, member: MemberView) -> str | None:
    return refused_gpus(ask.gpus, member.gpus)


FILTERS: tuple[Filter, ...] = (target, online, evacuated, scheduling, group, architecture, only, gpus)
