"""The owner's part of backups of custom volumes: writing the file, removing it, tidying after a crash."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster import failpoints
from cluster.errors import Error
from lxdpy.host.backup_archive import CUSTOM, END, HEADER, INDEX, entry, without_end
from lxdpy.host.storage.driver import Volume
from lxdpy.host.storage.stream import pack
from lxdpy.host.undo import Undo
from lxdpy.resources.backups.index import header_of, text_of
from lxdpy.resources.backups.writing import names_in, spooled, write
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.storage_volumes.actions import on_disk, reading
from lxdpy.resources.storage_volumes.disks import instances_with
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume, VolumeBackup, VolumeSnapshot
from lxdpy.resources.volume_backups import index
from lxdpy.resources.volume_backups.commands import (
    CreateVolumeBackup,
    DeleteVolumeBackup,
    FinishVolumeBackup,
    RemoveVolumeBackup,
)
from lxdpy.resources.volume_snapshots.model import ready

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


def folder(daemon: "Daemon") -> Path:
    return daemon.root / "volume-backups"


def path_of(daemon: "Daemon", id: str) -> Path:
    return folder(daemon) / id


async def create(
    daemon: "Daemon", volume: str, backup: VolumeBackup, compression: str, operation: Operation
) -> None:
    """Raises AlreadyExists, Exhausted; then nothing is left. The volume may be used meanwhile."""
    async with daemon.lock(f"backup {backup.id}"):
        row = daemon.state.get(VOLUMES, volume)
        await daemon.store.propose(CreateVolumeBackup(volume, backup))
        async with Undo() as undo:
            undo.push(_delete, daemon, row, backup.id)
            async with _still(daemon, row, backup) as source:
                tarball = _tarball(daemon, row, backup, source)
                await write(path_of(daemon, backup.id), tarball, compression, operation)
            await failpoints.reach("volume-backup.written")
            await daemon.store.propose(FinishVolumeBackup(volume, backup.id))


class Source(NamedTuple):
    """What a backup is made of, oldest first; none of it changes meanwhile."""

    snapshots: list[VolumeSnapshot]
    volume: Volume


@asynccontextmanager
async def _still(daemon: "Daemon", row: StorageVolume, backup: VolumeBackup) -> AsyncIterator[Source]:
    """The volume as it is now: itself while nobody has a hand in it, else a snapshot until this has ended."""
    driver, taken = daemon.pools.driver(row.pool), on_disk(row, backup.id)
    with ExitStack() as kept:
        async with daemon.lock(f"storage volume {row.id}"):
            now = daemon.state.get(VOLUMES, row.id)
            snapshots = [] if backup.volume_only else ready(now)
            for one in snapshots:
                kept.enter_context(reading(daemon, row, one.id))
            used = any(one.status in ("Running", "Frozen") for one in instances_with(daemon.state, now))
            if used or driver.abilities.copy_on_write:
                kept.enter_context(daemon.using(backup.id))
                await driver.snapshot(taken)
            else:
                kept.enter_context(reading(daemon, row))
                taken = on_disk(row)
        try:
            yield Source(snapshots, taken)
        finally:
            if taken.snapshot:
                await driver.delete(taken)


async def _tarball(
    daemon: "Daemon", row: StorageVolume, backup: VolumeBackup, source: Source
) -> AsyncGenerator[bytes, None]:
    """A pool without a form of its own for that is not optimized, whatever was asked for; as in LXD."""
    optimized = backup.optimized and daemon.pools.driver(row.pool).abilities.optimized
    now, snapshots = time.time(), source.snapshots
    yield entry(INDEX, text_of(index.index_of(daemon.state, row, snapshots, optimized=optimized)), now)
    if optimized:
        yield entry(HEADER, text_of(header_of(one.name for one in snapshots)), now)
    parent: Volume | None = None
    for name, volume in _parts(row, source):
        section = (
            _stream(daemon, row, name, volume, parent) if optimized else _files(daemon, row, name, volume)
        )
        async with aclosing(section) as chunks:
            async for chunk in chunks:
                yield chunk
        parent = volume
    yield END


def _parts(row: StorageVolume, source: Source) -> Iterator[tuple[str, Volume]]:
    """In the order in which they are written. "": the volume itself."""
    yield from ((one.name, on_disk(row, one.id)) for one in source.snapshots)
    yield "", source.volume


async def _files(
    daemon: "Daemon", row: StorageVolume, name: str, volume: Volume
) -> AsyncGenerator[bytes, None]:
    """One section, without the end of its tarball."""
    path = daemon.pools.driver(row.pool).path(volume)
    async with (
        aclosing(pack(path, CUSTOM.below(name), whole=True)) as packed,
        aclosing(without_end(packed)) as chunks,
    ):
        async for chunk in chunks:
            yield chunk


async def _stream(
    daemon: "Daemon", row: StorageVolume, name: str, volume: Volume, parent: Volume | None
) -> AsyncGenerator[bytes, None]:
    """One section in the form of the pool's driver."""
    sent = daemon.pools.driver(row.pool).send(volume, parent, {})
    async with aclosing(spooled(f"{CUSTOM.below(name)}.bin", sent, folder(daemon))) as chunks:
        async for chunk in chunks:
            yield chunk


async def delete(daemon: "Daemon", volume: str, id: str) -> None:
    """Fine if it is gone by then."""
    async with daemon.lock(f"backup {id}"):
        row = daemon.state.find(VOLUMES, volume)
        if row is None or not any(one.id == id for one in row.backups):
            return
        await daemon.store.propose(RemoveVolumeBackup(volume, id))
        await failpoints.reach("volume-backup.delete")
        await _delete(daemon, row, id)


async def _delete(daemon: "Daemon", row: StorageVolume, id: str) -> None:
    """The file and what it was made of, then the row."""
    await daemon.pools.driver(row.pool).delete(on_disk(row, id))
    await asyncio.to_thread(path_of(daemon, id).unlink, missing_ok=True)
    await daemon.store.propose(DeleteVolumeBackup(row.id, id))


async def expire(daemon: "Daemon") -> None:
    """Remove those of this member whose time is over."""
    now = time.time()
    for row, one in _mine(daemon):
        if one.status == "Ready" and 0 < one.expires_at <= now:
            try:
                await delete(daemon, row.id, one.id)
            except Error as later:
                log.info("expired backup %s of volume %s stays: %s", one.name, row.name, later.message)
            else:
                log.info("expired backup %s of volume %s was removed", one.name, row.name)


async def settle(daemon: "Daemon", id: str) -> None:
    """Remove a file (by name) whose row is gone, and rows of what was not finished. Idempotent."""
    async with daemon.lock(f"backup {id}"):
        for row, one in _mine(daemon):
            if one.id != id:
                continue
            if one.status != "Ready":
                log.info("backup %s of volume %s was not finished: it is removed", one.name, row.name)
                await _delete(daemon, row, id)
            return
        await asyncio.to_thread(path_of(daemon, id).unlink, missing_ok=True)


async def ids(daemon: "Daemon") -> set[str]:
    """Of the files that are here, and of rows of this member that are not finished."""
    unfinished = {one.id for _, one in _mine(daemon) if one.status != "Ready"}
    return await names_in(folder(daemon)) | unfinished


def changed(before: StorageVolume | None, after: StorageVolume | None) -> set[str]:
    """Ids of those whose files may have to go."""
    gone = {one.id for one in before.backups} if before else set()
    kept = {one.id for one in after.backups if one.status == "Ready"} if after else set()
    unfinished = {one.id for one in after.backups if one.status != "Ready"} if after else set()
    return (gone | unfinished) - kept


def _mine(daemon: "Daemon") -> list[tuple[StorageVolume, VolumeBackup]]:
    rows = [row for row in daemon.state.rows(VOLUMES).values() if row.location == daemon.member_id]
    return [(row, one) for row in rows for one in row.backups]
