"""What records say: LXD's `backup.yaml`, and `lxdpy`: what these have no word for."""

import msgspec

from cluster.state.txn import State
from lxdpy.host.backup_archive import CorruptBackup
from lxdpy.resources.backups.index import Described, describe, read, text_of
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.snapshots.model import snapshots_of
from lxdpy.resources.storage_volumes.model import StorageVolume
from lxdpy.resources.volume_backups import index as of_volumes
from lxdpy.resources.volume_snapshots.model import ready

RECORD = "backup.yaml"


class Mark(msgspec.Struct, frozen=True):
    """What only we know."""

    uuid: str = ""
    snapshots: dict[str, str] = {}  # names on disk, by name


class InstanceRecord(msgspec.Struct, frozen=True):
    container: Described
    lxdpy: Mark
    snapshots: tuple[Described, ...] | None = None


class VolumeDescribed(of_volumes.Described, frozen=True):
    project: str = "default"


class VolumeRecord(msgspec.Struct, frozen=True):
    volume: VolumeDescribed
    lxdpy: Mark = Mark()
    volume_snapshots: tuple[of_volumes.Described, ...] | None = None


def of_instance(state: State, row: Instance) -> bytes:
    snapshots = snapshots_of(state, row.key)
    mark = Mark(row.uuid, {one.name: one.id for one in snapshots})
    return text_of(describe(state, row, snapshots) | {"lxdpy": msgspec.to_builtins(mark)})


def of_volume(state: State, row: StorageVolume) -> bytes:
    snapshots = ready(row)
    mark = Mark(row.id, {one.name: one.id for one in snapshots})
    config = of_volumes.index_of(state, row, snapshots, optimized=False)["config"]
    return text_of(config | {"lxdpy": msgspec.to_builtins(mark)})


def instance_of(text: bytes) -> InstanceRecord:
    """Raises CorruptBackup, also for one that another program has written."""
    found = read(text, InstanceRecord, RECORD)
    if not found.lxdpy.uuid or not found.container.name:
        raise CorruptBackup(f"Invalid backup: {RECORD} does not say whose it is")
    return found


def volume_of(text: bytes) -> VolumeRecord:
    """Raises CorruptBackup."""
    found = read(text, VolumeRecord, "the record")
    if not found.volume.name:
        raise CorruptBackup("Invalid backup: the record has no name")
    return found
