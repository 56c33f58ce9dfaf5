"""Raft commands of snapshots. Only the instance's owner proposes those that tell what is on disk."""

import msgspec

from cluster.errors import AlreadyExists, Conflict
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import Txn
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.instances.commands import UpdateInstance, owned
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.snapshots.model import SNAPSHOTS, Slot, Snapshot

replace = msgspec.structs.replace
RESTORING = "volatile.restoring"  # name of the snapshot an instance is being brought back to


class CreateSnapshot(Command, frozen=True, tag="snapshot.create"):
    """Take the name, and announce the files that the owner is about to make."""

    snapshot: Snapshot
    owner: str

    def apply(self, txn: Txn) -> None:
        new = self.snapshot
        owned(txn, f"{new.project}/{new.instance}", self.owner)
        if txn.find(SNAPSHOTS, new.key) is not None:
            raise AlreadyExists(f'Snapshot "{new.instance}/{new.name}" already exists', snapshot=new.name)
        txn.insert(SNAPSHOTS, new.key, replace(new, status="Creating"))


class FinishSnapshot(Command, frozen=True, tag="snapshot.finish"):
    """Its files are there. With them the slot of the schedule that asked for it is settled."""

    key: str
    id: str
    slot: Slot | None = None

    def apply(self, txn: Txn) -> None:
        row = _same(txn, self.key, self.id)
        txn.put(SNAPSHOTS, self.key, replace(row, status="Ready"))
        if self.slot is not None:
            instance = txn.get(INSTANCES, f"{row.project}/{row.instance}")
            txn.put(INSTANCES, instance.key, replace(instance, slot=self.slot))


class SetSlot(Command, frozen=True, tag="snapshot.slot"):
    """From here on the instance follows this schedule; None: no schedule."""

    key: str
    owner: str
    slot: Slot | None

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        txn.put(INSTANCES, self.key, replace(before, slot=self.slot))


class ExpireSnapshot(Command, frozen=True, tag="snapshot.expiry"):
    """Change when it expires; 0: never."""

    key: str
    expires_at: float
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(SNAPSHOTS, self.key)
        check_etag(self.etag, snapshot_etag(before))
        txn.put(SNAPSHOTS, self.key, replace(before, expires_at=self.expires_at))


class RenameSnapshot(Command, frozen=True, tag="snapshot.rename"):
    key: str
    name: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(SNAPSHOTS, self.key)
        if before.status != "Ready":
            raise Conflict(f"Snapshot is being made or deleted: {before.instance}/{before.name}")
        after = replace(before, name=self.name)
        if txn.find(SNAPSHOTS, after.key) is not None:
            raise AlreadyExists(
                f"Name '{before.instance}/{self.name}' already in use", snapshot=f"{self.name}"
            )
        txn.insert(SNAPSHOTS, after.key, after)
        txn.delete(SNAPSHOTS, self.key)


class RemoveSnapshot(Command, frozen=True, tag="snapshot.remove"):
    """It is not there any more for anybody; its owner is about to remove the files."""

    key: str
    id: str

    def apply(self, txn: Txn) -> None:
        txn.put(SNAPSHOTS, self.key, replace(_same(txn, self.key, self.id), status="Deleting"))


class DeleteSnapshot(Command, frozen=True, tag="snapshot.delete"):
    """Its files are gone. Repeating it changes nothing."""

    key: str
    id: str

    def apply(self, txn: Txn) -> None:
        row = txn.find(SNAPSHOTS, self.key)
        if row is not None and row.id == self.id:
            txn.delete(SNAPSHOTS, self.key)


class RestoreInstance(Command, frozen=True, tag="snapshot.restore"):
    """The instance's files are those of the snapshot again: now its config too, and the note goes.

    `grants` and `gone` as in UpdateInstance.
    """

    key: str
    owner: str
    name: str
    grants: tuple[Grant, ...] | None = None
    gone: tuple[str, ...] = ()

    def apply(self, txn: Txn) -> None:
        before = owned(txn, self.key, self.owner)
        if before.config.get(RESTORING) != self.name:
            raise Conflict(f"Instance is not being restored: {before.name}")
        was = txn.get(SNAPSHOTS, f"{self.key}/{self.name}")
        command = UpdateInstance(
            self.key,
            was.description,
            was.config,
            was.devices,
            was.profiles,
            was.ephemeral,
            grants=self.grants,
            gone=self.gone,
        )
        command.apply(txn)
        after = txn.get(INSTANCES, self.key)
        config = {key: value for key, value in after.config.items() if key != RESTORING}
        txn.put(INSTANCES, self.key, replace(after, config=config, restored_at=txn.now))


def _same(txn: Txn, key: str, id: str) -> Snapshot:
    """The row, if it still is the one that is meant. Raises NotFound, Conflict."""
    row = txn.get(SNAPSHOTS, key)
    if row.id != id:
        raise Conflict(f"Snapshot is another by now: {row.instance}/{row.name}")
    return row


def snapshot_etag(row: Snapshot) -> str:
    return etag_of(row.expires_at)


COMMANDS: tuple[type[Command], ...] = (
    CreateSnapshot,
    FinishSnapshot,
    SetSlot,
    ExpireSnapshot,
    RenameSnapshot,
    RemoveSnapshot,
    DeleteSnapshot,
    RestoreInstance,
)
