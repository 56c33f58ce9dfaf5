"""A running container held still while its files are copied, where a pool cannot do that in one moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import failpoints
from lxdpy.resources.instances.model import Instance

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


@asynccontextmanager
async def quiet(daemon: "Daemon", row: Instance) -> AsyncIterator[None]:
    """None of its processes runs meanwhile, if it runs at all. The caller holds the lock.

    A file says so while it lasts, so that a daemon that dies leaves no container frozen: see `wake`.
    """
    copies_at_once = daemon.pools.driver(row.pool).abilities.copy_on_write
    if copies_at_once or daemon.runtime.state(row.volume).status != "Running":
        yield
        return
    await asyncio.to_thread(_mark(daemon, row).touch)
    try:
        await daemon.runtime.freeze(row.volume)
        await failpoints.reach("instance.quiet")
        yield
    finally:
        await wake(daemon, row)


async def wake(daemon: "Daemon", row: Instance) -> None:
    """Let it go on, if it was we who held it still. Idempotent."""
    mark = _mark(daemon, row)
    if await asyncio.to_thread(mark.exists):
        if daemon.runtime.state(row.volume).status == "Frozen":
            await daemon.runtime.unfreeze(row.volume)
        await asyncio.to_thread(mark.unlink)


def _mark(daemon: "Daemon", row: Instance) -> Path:
    return daemon.root / "run" / f"{row.volume}.quiet"
