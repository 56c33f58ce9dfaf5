"""A copy of a custom volume made the same as its source again: its files, and its snapshots."""

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from lxdpy.host.storage.stream import unpack
from lxdpy.resources.storage_volumes.actions import copy, files, on_disk
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_snapshots import actions
from lxdpy.resources.volume_snapshots.commands import (
    CreateVolumeSnapshot,
    FinishVolumeSnapshot,
    RestoredVolume,
)
from lxdpy.resources.volume_snapshots.model import ready

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


async def refresh(
    daemon: "Daemon", target: StorageVolume, source: StorageVolume, snapshot: str, *, volume_only: bool
) -> None:
    """From `source`, or its `snapshot` (id). As in LXD, snapshots that the source has no more go.

    What comes is there whole before it takes the place of what was. Raises Invalid while a running instance
    has the target.
    """
    if not volume_only:
        wanted = {marks(one) for one in ready(source)}
        for one in ready(target):
            if marks(one) not in wanted:
                await actions.delete(daemon, target.id, one.id)
    async with daemon.lock(f"storage volume {target.id}"), actions.at_rest(daemon, target.id) as row:
        there = {marks(one) for one in ready(row)}
        for one in [] if volume_only else ready(source):
            if marks(one) not in there:
                await _take(daemon, row, source, one)
        await _fill(daemon, row, source, snapshot)
        await daemon.store.propose(RestoredVolume(row.id))


def marks(one: VolumeSnapshot) -> tuple[str, float]:
    """What makes two the same: one that was taken anew has its name only."""
    return one.name, one.created_at


async def _take(daemon: "Daemon", row: StorageVolume, source: StorageVolume, one: VolumeSnapshot) -> None:
    """What a crash leaves of it is removed when the volume is settled."""
    new = msgspec.structs.replace(one, id=uuid4().hex)
    await daemon.store.propose(CreateVolumeSnapshot(row.id, new))
    await copy(daemon, source, one.id, on_disk(row, new.id), row.pool)
    await daemon.store.propose(FinishVolumeSnapshot(row.id, new.id))


async def _fill(daemon: "Daemon", row: StorageVolume, source: StorageVolume, snapshot: str) -> None:
    async def fill(folder: Path) -> None:
        async with aclosing(files(daemon, source, snapshot)) as chunks:
            await unpack(chunks, folder)

    await daemon.pools.driver(row.pool).fill(on_disk(row), fill)
