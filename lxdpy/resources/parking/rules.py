"""PURE: what parking keeps other commands from."""

from cluster.errors import Conflict
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.instances.model import PARKED, Instance


def check_parked(row: Instance, grants: tuple[Grant, ...]) -> None:
    """Raises Conflict if it would get GPUs that it has given back for a while: it is unparked first."""
    if grants and PARKED in row.config:
        raise Conflict("The GPUs of the instance are parked", instance=row.name)
