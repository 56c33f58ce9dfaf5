"""What a backup of a custom volume says of itself, in LXD's words: `index.yaml`."""

import msgspec

from cluster.state.txn import State
from lxdpy.host.backup_archive import CorruptBackup
from lxdpy.resources.backups.index import Json, read
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.wire import rfc3339


class Described(msgspec.Struct, frozen=True):
    """A volume, or a snapshot of one, as far as an import goes by it."""

    name: str = ""
    description: str = ""
    config: Config | None = None
    content_type: str = "filesystem"
    created_at: str | None = None
    expires_at: str | None = None


class Whole(msgspec.Struct, frozen=True):
    """What LXD calls `config` in an index."""

    volume: Described | None = None
    volume_snapshots: tuple[Described, ...] | None = None


class Index(msgspec.Struct, frozen=True):
    name: str
    backend: str = ""
    snapshots: tuple[str, ...] | None = None
    optimized: bool = False
    type: str = "custom"
    config: Whole | None = None

    @property
    def volume(self) -> Described:
        assert self.config is not None
        assert self.config.volume is not None
        return self.config.volume


def parse(text: bytes) -> Index:
    """Raises CorruptBackup, saying what is wrong."""
    found = read(text, Index)
    if found.type != "custom":
        raise CorruptBackup(f'Invalid backup: of type "{found.type}", not of a custom volume')
    if found.config is None or found.config.volume is None:
        raise CorruptBackup("Invalid backup: index.yaml does not describe the volume")
    if found.volume.content_type != "filesystem":
        raise CorruptBackup(f'Content type "{found.volume.content_type}" is for virtual machines')
    return found


def listed(found: Index) -> list[Described]:
    """The snapshots of the backup, in its order. Raises CorruptBackup."""
    described = {one.name: one for one in (found.config and found.config.volume_snapshots) or ()}
    names = found.snapshots or ()
    if len(set(names)) != len(names) or not set(names) <= described.keys():
        raise CorruptBackup("Backup snapshots mismatch")
    return [described[name] for name in names]


def index_of(state: State, row: StorageVolume, snapshots: list[VolumeSnapshot], *, optimized: bool) -> Json:
    return {
        "name": row.name,
        "backend": state.get(POOLS, row.pool).driver,
        "pool": row.pool,
        "snapshots": [one.name for one in snapshots],
        "optimized": optimized,
        "optimized_header": optimized,
        "type": "custom",
        "config": {
            "volume": {
                "config": row.config,
                "description": row.description,
                "name": row.name,
                "type": "custom",
                "used_by": [],
                "location": "none",
                "content_type": "filesystem",
                "project": row.project,
                "created_at": rfc3339(row.created_at),
            },
            "volume_snapshots": [
                {
                    "description": one.description,
                    "expires_at": rfc3339(one.expires_at),
                    "name": one.name,
                    "config": one.config,
                    "content_type": "filesystem",
                    "created_at": rfc3339(one.created_at),
                }
                for one in snapshots
            ],
        },
    }
