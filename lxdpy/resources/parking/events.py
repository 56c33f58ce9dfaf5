"""PURE: what is told of an instance that is parked or unparked, or whose lease is about to end."""

from lxdpy.resources.instances.model import PARKED, WARNED
from lxdpy.resources.profiles.model import Config


def told(before: Config, after: Config) -> tuple[str, dict[str, str]] | None:
    """Action and context; None if it is none of these. Our own names."""
    if PARKED in after and PARKED not in before:
        return "instance-gpu-parked", {"reason": after[PARKED]}
    if PARKED in before and PARKED not in after:
        return "instance-gpu-unparked", {}
    if WARNED in after and after[WARNED] != before.get(WARNED):
        return "instance-gpu-lease-ending", {"ends_at": after[WARNED]}
    return None
