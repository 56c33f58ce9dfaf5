"""Raft commands of backups of custom volumes. The owner proposes those that tell what is on disk."""

import msgspec

from cluster.errors import AlreadyExists, Conflict
from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume, VolumeBackup
from lxdpy.resources.volume_backups.model import the_backup

replace = msgspec.structs.replace


class CreateVolumeBackup(Command, frozen=True, tag="volume.backup.create"):
    """Take the name, and announce the file that the owner is about to write."""

    volume: str  # id
    backup: VolumeBackup

    def apply(self, txn: Txn) -> None:
        row, new = txn.get(VOLUMES, self.volume), self.backup
        if row.status != "Ready":
            raise Conflict(f"Storage volume is being made or deleted: {row.name}", volume=row.name)
        refuse_taken(row, new.name)
        txn.put(VOLUMES, row.id, replace(row, backups=(*row.backups, replace(new, status="Creating"))))


class FinishVolumeBackup(Command, frozen=True, tag="volume.backup.finish"):
    """It is written."""

    volume: str
    id: str

    def apply(self, txn: Txn) -> None:
        _change(txn, self.volume, self.id, status="Ready")


class RenameVolumeBackup(Command, frozen=True, tag="volume.backup.rename"):
    volume: str
    name: str
    new_name: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        before = the_backup(row, self.name)
        refuse_taken(row, self.new_name)
        _change(txn, row.id, before.id, name=self.new_name)


class RemoveVolumeBackup(Command, frozen=True, tag="volume.backup.remove"):
    """It is not there any more for anybody; its owner is about to remove the file. May be repeated."""

    volume: str
    id: str

    def apply(self, txn: Txn) -> None:
        _change(txn, self.volume, self.id, status="Deleting")


class DeleteVolumeBackup(Command, frozen=True, tag="volume.backup.delete"):
    """Its file is gone. May be repeated, and the volume may be gone."""

    volume: str
    id: str

    def apply(self, txn: Txn) -> None:
        row = txn.find(VOLUMES, self.volume)
        if row is not None:
            left = tuple(one for one in row.backups if one.id != self.id)
            txn.put(VOLUMES, row.id, replace(row, backups=left))


def refuse_taken(row: StorageVolume, name: str) -> None:
    """Raises AlreadyExists, also for one that is still being made or removed."""
    if any(one.name == name for one in row.backups):
        raise AlreadyExists(f'Backup "{row.name}/{name}" already exists', backup=name)


def _change(txn: Txn, volume: str, id: str, **changes: object) -> None:
    """Raises Conflict if the backup has gone meanwhile."""
    row = txn.get(VOLUMES, volume)
    if not any(one.id == id for one in row.backups):
        raise Conflict(f"Backup of storage volume {row.name} is gone by now", volume=row.name)
    backups = tuple(replace(one, **changes) if one.id == id else one for one in row.backups)
    txn.put(VOLUMES, row.id, replace(row, backups=backups))


COMMANDS: tuple[type[Command], ...] = (
    CreateVolumeBackup,
    FinishVolumeBackup,
    RenameVolumeBackup,
    RemoveVolumeBackup,
    DeleteVolumeBackup,
)
