"""What an owner does with snapshots of its custom volumes: make, remove, bring a volume back to one."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cluster import failpoints
from lxdpy.host.undo import Undo
from lxdpy.resources.snapshots.model import Slot
from lxdpy.resources.storage_volumes import actions as volumes
from lxdpy.resources.storage_volumes.actions import on_disk
from lxdpy.resources.storage_volumes.disks import instances_with
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_snapshots.commands import (
    CreateVolumeSnapshot,
    DeleteVolumeSnapshot,
    FinishVolumeSnapshot,
    RemoveVolumeSnapshot,
    RestoredVolume,
    refuse_running,
)
from lxdpy.resources.volume_snapshots.model import the_snapshot

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


async def create(
    daemon: "Daemon", volume: str, snapshot: VolumeSnapshot, *, slot: Slot | None = None
) -> None:
    """Take it now, with what running instances have written so far, as LXD does. `slot`: settled by it.

    Raises AlreadyExists, Exhausted; then nothing is left.
    """
    async with daemon.lock(f"storage volume {volume}"):
        row = daemon.state.get(VOLUMES, volume)
        await daemon.store.propose(CreateVolumeSnapshot(volume, snapshot))
        async with Undo() as undo:
            undo.push(_delete, daemon, row, snapshot.id)
            await daemon.pools.driver(row.pool).snapshot(on_disk(row, snapshot.id))
            await failpoints.reach("volume-snapshot.created")
            await daemon.store.propose(FinishVolumeSnapshot(volume, snapshot.id, slot))


async def delete(daemon: "Daemon", volume: str, id: str) -> None:
    """Fine if it is gone by then."""
    async with daemon.lock(f"storage volume {volume}"):
        row = daemon.state.find(VOLUMES, volume)
        if row is None or not any(one.id == id for one in row.snapshots):
            return
        await daemon.store.propose(RemoveVolumeSnapshot(volume, id))
        await failpoints.reach("volume-snapshot.delete")
        await _delete(daemon, row, id)


async def _delete(daemon: "Daemon", row: StorageVolume, id: str) -> None:
    """The files, once nobody copies them any more, then the row."""
    await daemon.unused(id)
    await daemon.pools.driver(row.pool).delete(on_disk(row, id))
    await daemon.store.propose(DeleteVolumeSnapshot(row.id, id))


async def restore(daemon: "Daemon", volume: str, name: str) -> None:
    """Make the files those of a snapshot: all, or none of them. The config stays as it is, as in LXD.

    Raises NotFound, Invalid while an instance that has the volume runs.
    """
    async with daemon.lock(f"storage volume {volume}"):
        snapshot = the_snapshot(daemon.state.get(VOLUMES, volume), name)
        async with at_rest(daemon, volume) as row:
            await daemon.pools.driver(row.pool).restore(on_disk(row, snapshot.id))
            await daemon.store.propose(RestoredVolume(volume))


@asynccontextmanager
async def at_rest(daemon: "Daemon", volume: str) -> AsyncIterator[StorageVolume]:
    """While no instance that has the volume runs, nor is started. Its lock is the caller's.

    One that comes to have it meanwhile is given it afterwards, see `volumes.settled`. So the last lock is
    that of the files, and with it none of an instance is waited for: those wait for it.

    Raises Invalid while one runs, NotFound.
    """
    while True:
        async with AsyncExitStack() as locks:
            users = _users(daemon, volume)
            for key in sorted(users):  # all in one order: nobody waits in a circle
                await locks.enter_async_context(daemon.lock(f"instance {key}"))
            await locks.enter_async_context(daemon.lock(volumes.files_of(volume)))
            if _users(daemon, volume) <= users:
                refuse_running(daemon.state, daemon.state.get(VOLUMES, volume))
                await daemon.unused(volume)  # who begins to copy it now is refused
                yield daemon.state.get(VOLUMES, volume)
                return


def _users(daemon: "Daemon", volume: str) -> set[str]:
    """Keys of the instances that have it. Raises NotFound."""
    return {row.key for row in instances_with(daemon.state, daemon.state.get(VOLUMES, volume))}


async def settle(daemon: "Daemon", volume: str) -> None:
    """Remove what a crash left: a volume that is to go or was not made, or such snapshots. Idempotent."""
    await volumes.settle(daemon, volume)
    async with daemon.lock(f"storage volume {volume}"):
        row = daemon.state.find(VOLUMES, volume)
        if row is None or row.location != daemon.member_id or row.status != "Ready":
            return
        for snapshot in row.snapshots:
            if snapshot.status != "Ready":
                log.info("snapshot %s/%s was not finished: it is removed", row.name, snapshot.name)
                await _delete(daemon, row, snapshot.id)


def is_to_settle(row: StorageVolume) -> bool:
    """Not one that is being made: whoever makes it has yet to take the lock."""
    unfinished = row.status == "Ready" and any(one.status != "Ready" for one in row.snapshots)
    return unfinished or row.status == "Deleting"
