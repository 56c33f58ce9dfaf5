"""Bodies of requests, and finding a backup. The rows are in `storage_volumes.model`."""

import msgspec

from cluster.errors import NotFound
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeBackup
from lxdpy.resources.wire import url


class VolumeBackupsPost(msgspec.Struct):
    name: str = ""
    expires_at: str | None = None
    volume_only: bool = False
    optimized_storage: bool = False
    compression_algorithm: str = ""


class VolumeBackupPost(msgspec.Struct):
    """Rename."""

    name: str = ""


def ready(row: StorageVolume) -> list[VolumeBackup]:
    """Those that are there, oldest first."""
    there = (one for one in row.backups if one.status == "Ready")
    return sorted(there, key=lambda one: (one.created_at, one.name))


def the_backup(row: StorageVolume, name: str) -> VolumeBackup:
    """Raises NotFound."""
    for one in ready(row):
        if one.name == name:
            return one
    raise NotFound("Storage volume backup not found", backup=f"{row.name}/{name}")


def backup_url(row: StorageVolume, name: str) -> str:
    pool = f"storage-pools/{row.pool}/volumes/custom"
    return url(pool, row.name, "backups", name, project=row.project)
