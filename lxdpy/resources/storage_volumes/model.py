"""Custom storage volumes: rows, bodies, and where to find one."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from cluster.errors import Invalid, NotFound
from cluster.membership.model import is_clustered, name_of
from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.remotes.model import Target
from lxdpy.resources.snapshots.model import Slot
from lxdpy.resources.wire import url

Status = Literal["Creating", "Ready", "Deleting"]


class VolumeSnapshot(Stored, frozen=True):
    """A volume as it was."""

    id: str  # its name on disk
    name: str
    status: Status = "Creating"
    description: str = ""
    config: Config = {}
    created_at: float = 0.0
    expires_at: float = 0.0  # 0: never


class VolumeBackup(Stored, frozen=True):
    """A volume as a file on its owner."""

    id: str  # the file's name
    name: str
    status: Status = "Creating"
    created_at: float = 0.0
    expires_at: float = 0.0  # 0: never
    volume_only: bool = False
    optimized: bool = False  # as the pool's driver streams it


class StorageVolume(Stored, frozen=True):
    """Key: `id`, which is what its folder is called as well: a rename moves nothing."""

    id: str
    pool: str
    project: str  # whose it is: another's where a project has no volumes of its own
    name: str
    location: str  # member id
    description: str = ""
    config: Config = {}
    status: Status = "Creating"
    created_at: float = 0.0
    snapshots: tuple[VolumeSnapshot, ...] = ()
    restored_at: float = 0.0  # when it was last brought back to one
    slot: Slot | None = None  # of its scheduled snapshots
    backups: tuple[VolumeBackup, ...] = ()


VOLUMES: Table[StorageVolume] = Table("storage_volumes", StorageVolume)


class VolumeSource(msgspec.Struct):
    """Of a copy: another volume, on the member `location` (name) if there are several of that name."""

    type: str = ""
    name: str = ""
    pool: str = ""
    project: str = ""
    location: str = ""
    operation: str = ""  # of a migration: URL of the operation by which the other end offers it
    mode: str = ""
    certificate: str = ""
    secrets: dict[str, str] | None = None
    volume_only: bool = False  # without its snapshots
    refresh: bool = False


class VolumesPost(msgspec.Struct):
    name: str = ""
    type: str = ""
    description: str = ""
    content_type: str = ""
    config: Config | None = None
    source: VolumeSource = msgspec.field(default_factory=VolumeSource)


class VolumePut(msgspec.Struct):
    description: str | None = None
    config: Config | None = None
    restore: str = ""  # name of a snapshot


class VolumePost(msgspec.Struct):
    name: str = ""
    pool: str = ""
    project: str = ""
    migration: bool = False
    volume_only: bool = False
    target: Target | None = None


def volumes(
    state: State | Txn, pool: str = "", project: str = "", name: str = "", member: str = ""
) -> Iterator[StorageVolume]:
    """Those of that pool, project, name and member (id); "" is any. In the order of names."""
    for row in sorted(state.rows(VOLUMES).values(), key=lambda row: (row.project, row.name, row.location)):
        asked = ((pool, row.pool), (project, row.project), (name, row.name), (member, row.location))
        if all(wanted in ("", has) for wanted, has in asked):
            yield row


def the_volume(state: State | Txn, pool: str, project: str, name: str, member: str = "") -> StorageVolume:
    """Raises NotFound, or Invalid when several members have one of that name and none is given."""
    found = list(volumes(state, pool, project, name, member)) if name else []
    if not found:
        raise NotFound("Storage pool volume not found", volume=name)
    if len(found) > 1:
        raise Invalid(
            f'More than one cluster member has a volume named "{name}". Please target a specific member',
            key="target",
        )
    return found[0]


def volume_url(state: State | Txn, row: StorageVolume) -> str:
    """In a cluster with the member that has it."""
    path = url(f"storage-pools/{row.pool}/volumes/custom", row.name, project=row.project)
    if not is_clustered(state):
        return path
    return f"{path}{'&' if '?' in path else '?'}target={name_of(state, row.location)}"
