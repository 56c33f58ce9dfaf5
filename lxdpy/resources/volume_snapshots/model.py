"""Bodies of requests, and finding a snapshot. The rows are in `storage_volumes.model`."""

import msgspec

from cluster.errors import NotFound
from cluster.membership.model import is_clustered, name_of
from cluster.state.txn import State, Txn
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.wire import url


class VolumeSnapshotsPost(msgspec.Struct):
    name: str = ""
    expires_at: str | None = None  # null: as `snapshots.expiry` of the volume says


class VolumeSnapshotPut(msgspec.Struct):
    description: str | None = None
    expires_at: str | None = None


class VolumeSnapshotPost(msgspec.Struct):
    name: str = ""


def ready(row: StorageVolume) -> list[VolumeSnapshot]:
    """Those that are there, oldest first."""
    there = (one for one in row.snapshots if one.status == "Ready")
    return sorted(there, key=lambda one: (one.created_at, one.name))


def the_snapshot(row: StorageVolume, name: str) -> VolumeSnapshot:
    """Raises NotFound."""
    for one in ready(row):
        if one.name == name:
            return one
    raise NotFound("Storage volume snapshot not found", snapshot=f"{row.name}/{name}")


def snapshot_url(state: State | Txn, row: StorageVolume, name: str) -> str:
    """In a cluster with the member that has it."""
    pool = f"storage-pools/{row.pool}/volumes/custom"
    path = url(pool, row.name, "snapshots", name, project=row.project)
    if not is_clustered(state):
        return path
    return f"{path}{'&' if '?' in path else '?'}target={name_of(state, row.location)}"
