"""Deleting instances; one that is still being built is given up."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from cluster.errors import Conflict, Forbidden, Invalid
from lxdpy.resources.instances import teardown
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.spec import is_on
from lxdpy.resources.snapshots import actions as snapshots
from lxdpy.resources.snapshots.model import all_of, snapshots_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


READ_WITHIN = 30.0  # seconds; a reader whose other end has gone lets go as soon as it notices


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
    await _unread(daemon, row)
    async with daemon.lock(f"instance {row.key}"):
        now = daemon.state.find(INSTANCES, row.key)
        if now is None or now.uuid != row.uuid:
            return
        check_delete(daemon, now)
        with snapshots.going(daemon, *(one.id for one in snapshots_of(daemon.state, row.key))):
            await teardown.remove(daemon, now)


async def _unread(daemon: "Daemon", row: Instance) -> None:
    """Wait for who is still reading a snapshot of it, for a while; they may need the lock in the end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_WITHIN):
            for one in all_of(daemon.state, row.key):
                await daemon.unused(one.id)
