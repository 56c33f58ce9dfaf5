"""Raft commands of snapshots of custom volumes. The owner proposes those that tell what is on disk."""

import msgspec

from cluster.errors import AlreadyExists, Conflict, Invalid
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State, Txn
from lxdpy.resources.snapshots.model import Slot
from lxdpy.resources.storage_volumes.disks import instances_with
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_snapshots.model import the_snapshot

replace = msgspec.structs.replace


class CreateVolumeSnapshot(Command, frozen=True, tag="volume.snapshot.create"):
    """Take the name, and announce the files that the owner is about to make."""

    volume: str  # id
    snapshot: VolumeSnapshot

    def apply(self, txn: Txn) -> None:
        row, new = txn.get(VOLUMES, self.volume), self.snapshot
        if row.status != "Ready":
            raise Conflict(f"Storage volume is being made or deleted: {row.name}", volume=row.name)
        refuse_taken(row, new.name)
        _put(txn, replace(row, snapshots=(*row.snapshots, replace(new, status="Creating"))))


class FinishVolumeSnapshot(Command, frozen=True, tag="volume.snapshot.finish"):
    """Its files are there. With them the slot of the schedule that asked for it is settled."""

    volume: str
    id: str
    slot: Slot | None = None

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        row = replace(row, slot=self.slot) if self.slot is not None else row
        _change(txn, row, self.id, status="Ready")


class SetVolumeSlot(Command, frozen=True, tag="volume.snapshot.slot"):
    """From here on the volume follows this schedule; None: no schedule."""

    volume: str
    slot: Slot | None

    def apply(self, txn: Txn) -> None:
        _put(txn, replace(txn.get(VOLUMES, self.volume), slot=self.slot))


class UpdateVolumeSnapshot(Command, frozen=True, tag="volume.snapshot.update"):
    volume: str
    name: str
    description: str
    expires_at: float  # unix seconds; 0: never
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        before = the_snapshot(row, self.name)
        check_etag(self.etag, snapshot_etag(before))
        _change(txn, row, before.id, description=self.description, expires_at=self.expires_at)


class RenameVolumeSnapshot(Command, frozen=True, tag="volume.snapshot.rename"):
    volume: str
    name: str
    new_name: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        before = the_snapshot(row, self.name)
        refuse_taken(row, self.new_name)
        _change(txn, row, before.id, name=self.new_name)


class RemoveVolumeSnapshot(Command, frozen=True, tag="volume.snapshot.remove"):
    """It is not there any more for anybody; its owner is about to remove the files. May be repeated."""

    volume: str
    id: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        _change(txn, row, self.id, status="Deleting")


class DeleteVolumeSnapshot(Command, frozen=True, tag="volume.snapshot.delete"):
    """Its files are gone. May be repeated."""

    volume: str
    id: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        _put(txn, replace(row, snapshots=tuple(one for one in row.snapshots if one.id != self.id)))


class RestoredVolume(Command, frozen=True, tag="volume.restored"):
    """The files are those of a snapshot again."""

    volume: str

    def apply(self, txn: Txn) -> None:
        row = txn.get(VOLUMES, self.volume)
        _put(txn, replace(row, restored_at=txn.now))


def refuse_taken(row: StorageVolume, name: str) -> None:
    """Raises AlreadyExists, also for one that is still being made or removed."""
    if any(one.name == name for one in row.snapshots):
        raise AlreadyExists(f'Snapshot "{row.name}/{name}" already exists', snapshot=name)


def refuse_running(txn: State | Txn, row: StorageVolume) -> None:
    """Raises Invalid while an instance that has the volume runs: what it has open would be swapped away."""
    for instance in instances_with(txn, row):
        if instance.status in ("Running", "Frozen"):
            raise Invalid(
                "Cannot restore custom volume used by running instances",
                instance=instance.name,
                volume=row.name,
            )


def snapshot_etag(one: VolumeSnapshot) -> str:
    return etag_of(one.description, one.expires_at)


def _change(txn: Txn, row: StorageVolume, id: str, **changes: object) -> None:
    """Of a snapshot that has gone meanwhile there is nothing to change."""
    snapshots = tuple(replace(one, **changes) if one.id == id else one for one in row.snapshots)
    _put(txn, replace(row, snapshots=snapshots))


def _put(txn: Txn, row: StorageVolume) -> None:
    txn.put(VOLUMES, row.id, row)


COMMANDS: tuple[type[Command], ...] = (
    CreateVolumeSnapshot,
    FinishVolumeSnapshot,
    SetVolumeSlot,
    UpdateVolumeSnapshot,
    RenameVolumeSnapshot,
    RemoveVolumeSnapshot,
    DeleteVolumeSnapshot,
    RestoredVolume,
)
