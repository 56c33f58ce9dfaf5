"""Who reads the files of snapshots, and who therefore has to leave them where they are."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cluster.errors import Conflict
from lxdpy.resources.snapshots.model import all_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

READ_WITHIN = 30.0  # seconds; a reader whose other end has gone lets go as soon as it notices


@contextmanager
def used(daemon: "Daemon", *ids: str) -> Iterator[None]:
    """Keep the files of snapshots from being removed meanwhile. Raises Conflict while one is."""
    with ExitStack() as stack:
        for id in ids:
            if id in daemon.going:
                raise Conflict("The snapshot is being removed", snapshot=id)
            stack.enter_context(daemon.using(id))
        yield


@contextmanager
def going(daemon: "Daemon", *ids: str) -> Iterator[None]:
    """Within, nobody begins to read these snapshots. Raises Conflict while somebody does."""
    if any(daemon.in_use[id] for id in ids):
        raise Conflict("The snapshot is being copied")
    daemon.going.update(ids)
    try:
        yield
    finally:
        daemon.going.difference_update(ids)


@contextmanager
def going_with(daemon: "Daemon", key: str) -> Iterator[None]:
    """`going` of all snapshots of an instance, those that nobody sees as well."""
    with going(daemon, *(one.id for one in all_of(daemon.state, key))):
        yield


async def unread(daemon: "Daemon", key: str) -> None:
    """Wait for who is still reading a snapshot of an instance, for a while; they may need its lock in the
    end, so the caller does not have it.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_WITHIN):
            for one in all_of(daemon.state, key):
                await daemon.unused(one.id)
