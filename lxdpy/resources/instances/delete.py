"""Deleting instances; one that is still being built is given up."""

from typing import TYPE_CHECKING

from cluster.errors import Conflict, Forbidden, Invalid
from lxdpy.resources.instances import teardown
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.spec import is_on
from lxdpy.resources.snapshots import readers

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def check_delete(daemon: "Daemon", row: Instance) -> None:
    """Raises Invalid while it runs, Conflict while it is moved, Forbidden while it is protected."""
    if row.move is not None:
        raise Conflict("The instance is being moved")
    if daemon.runtime.state(row.volume).status != "Stopped":
        raise Invalid("Instance is running")
    if is_on(expanded(daemon.state, row)[0], "security.protection.delete"):
        raise Forbidden("Instance is protected")


async def delete(daemon: "Daemon", row: Instance) -> None:
    """Fine if it is gone by then, or has made place for another of its name. Raises Conflict while a snapshot
    of it is being copied for long.
    """
    build = daemon.operations.find(row.operation)
    if build is not None and build.task is not None and not build.is_final:
        build.task.cancel()
    await readers.unread(daemon, row.key)
    async with daemon.lock(f"instance {row.key}"):
        now = daemon.state.find(INSTANCES, row.key)
        if now is None or now.uuid != row.uuid:
            return
        check_delete(daemon, now)
        with readers.going_with(daemon, row.key):
            await teardown.remove(daemon, now)
