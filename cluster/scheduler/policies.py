"""Placement policies: how to rank members that passed every filter."""

from collections.abc import Callable

from cluster.scheduler.types import Ask, MemberView

Score = Callable[[int, Ask, MemberView], tuple[float, ...]]
"""Of a member with so many GPUs that the ask could have; with their number it never rises, or it never falls.

Lower is better; compared item by item, as tuples are.
"""

DEFAULT = "spread"


def spread(usable: int, ask: Ask, member: MemberView) -> tuple[float, ...]:
    """Most free GPUs of the wanted kind first if GPUs are asked for; else LXD's rule, fewest instances."""
    return (-usable, member.instances, member.memory_used - member.memory)


def pack(usable: int, ask: Ask, member: MemberView) -> tuple[float, ...]:
    """Fullest member that still fits first, so that large asks still find an empty one."""
    left = member.memory - member.memory_used - ask.memory
    idle = member.cpus - member.cpus_used - ask.cpus
    return (usable, -member.instances, left, idle)


def spare_gpus(usable: int, ask: Ask, member: MemberView) -> tuple[float, ...]:
    """Keep GPU members for GPU work; among those, leave the fewest GPUs stranded."""
    if ask.gpus:
        return (usable, member.instances)
    return (sum(gpu.state == "free" for gpu in member.gpus), member.instances)


POLICIES: dict[str, Score] = {"spread": spread, "pack": pack, "spare-gpus": spare_gpus}
