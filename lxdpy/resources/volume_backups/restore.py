"""Imports: a backup that a client sends becomes a custom volume of the member that takes it."""

import time
from typing import TYPE_CHECKING
from uuid import uuid4

from lxdpy.host.backup_archive import CUSTOM, MAIN, CorruptBackup, Reader
from lxdpy.host.storage.registry import volume_keys
from lxdpy.resources.backups.actions import folder
from lxdpy.resources.backups.index import unmap_of
from lxdpy.resources.backups.restore import receiving, take_apart
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.snapshots.names import check_name
from lxdpy.resources.storage_pools.model import Pool
from lxdpy.resources.storage_volumes.actions import on_disk
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_backups.index import Described, Index, listed
from lxdpy.resources.wire import seconds_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

IDMAP = "volatile.idmap.last"  # of a volume in LXD: how the files' owners lie on disk


def drafted(found: Index, pool: Pool, project: str, name: str, member: str) -> StorageVolume:
    """The row. Keys that another driver knows are left out, as in LXD. Raises CorruptBackup, BadValue."""
    of = found.volume
    return StorageVolume(
        uuid4().hex,
        pool.name,
        project,
        name,
        member,
        description=of.description,
        config=known_config(pool, of.config or {}),
        created_at=time.time(),
        snapshots=tuple(_snapshot(pool, one) for one in listed(found)),
    )


def known_config(pool: Pool, config: Config) -> Config:
    """Of the config what this pool's driver knows, without another server's notes."""
    keys = volume_keys(pool.driver)
    kept = {
        key: value
        for key, value in config.items()
        if value and keys.find(key) is not None and not key.startswith("volatile.")
    }
    keys.check(kept)
    return kept


def _snapshot(pool: Pool, of: Described) -> VolumeSnapshot:
    check_name(of.name)
    try:
        created, expires = map(seconds_of, (of.created_at, of.expires_at))
    except ValueError:
        raise CorruptBackup(f'Invalid backup: a date of snapshot "{of.name}" is none') from None
    return VolumeSnapshot(
        id=uuid4().hex,
        name=of.name,
        status="Ready",
        description=of.description,
        config=known_config(pool, of.config or {}),
        created_at=created,
        expires_at=expires,
    )


async def build(daemon: "Daemon", row: StorageVolume, found: Index, file: str) -> None:
    """The files of the new volume and its snapshots. Raises CorruptBackup, Exhausted."""
    unmaps = {one.name: unmap_of(one.config or {}, IDMAP) for one in listed(found)}
    unmaps[MAIN] = unmap_of(found.volume.config or {}, IDMAP)
    targets = {one.name: on_disk(row, one.id) for one in row.snapshots}
    targets[MAIN] = on_disk(row)
    async with receiving(daemon, row.pool, found.backend if found.optimized else "") as receive:
        await take_apart(Reader(folder(daemon) / file, CUSTOM), receive, targets, unmaps)
