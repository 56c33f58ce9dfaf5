"""Raft commands of backups."""

import msgspec

from cluster.errors import AlreadyExists, Conflict
from cluster.state.command import Command
from cluster.state.txn import Txn
from lxdpy.resources.backups.model import BACKUPS, Backup
from lxdpy.resources.instances.commands import owned

replace = msgspec.structs.replace


class CreateBackup(Command, frozen=True, tag="backup.create"):
    """Take the name, and announce the file that the owner is about to write."""

    backup: Backup
    owner: str

    def apply(self, txn: Txn) -> None:
        new = self.backup
        instance = owned(txn, f"{new.project}/{new.instance}", self.owner)
        if instance.move is not None:
            raise Conflict("The instance is being moved")
        if txn.find(BACKUPS, new.key) is not None:
            raise AlreadyExists(f'Backup "{new.instance}/{new.name}" already exists', backup=new.name)
        txn.insert(BACKUPS, new.key, replace(new, status="Creating"))


class FinishBackup(Command, frozen=True, tag="backup.finish"):
    """It is written."""

    key: str
    id: str

    def apply(self, txn: Txn) -> None:
        txn.put(BACKUPS, self.key, replace(_same(txn, self.key, self.id), status="Ready"))


class RenameBackup(Command, frozen=True, tag="backup.rename"):
    key: str
    name: str

    def apply(self, txn: Txn) -> None:
        before = txn.get(BACKUPS, self.key)
        if before.status != "Ready":
            raise Conflict(f"Backup is being made or deleted: {before.instance}/{before.name}")
        after = replace(before, name=self.name)
        if txn.find(BACKUPS, after.key) is not None:
            raise AlreadyExists(f'Backup "{before.instance}/{self.name}" already exists', backup=self.name)
        txn.insert(BACKUPS, after.key, after)
        txn.delete(BACKUPS, self.key)


class RemoveBackup(Command, frozen=True, tag="backup.remove"):
    """It is not there any more for anybody; its owner is about to remove the file."""

    key: str
    id: str

    def apply(self, txn: Txn) -> None:
        txn.put(BACKUPS, self.key, replace(_same(txn, self.key, self.id), status="Deleting"))


class DeleteBackup(Command, frozen=True, tag="backup.delete"):
    """Its file is gone. Repeating it changes nothing."""

    key: str
    id: str

    def apply(self, txn: Txn) -> None:
        row = txn.find(BACKUPS, self.key)
        if row is not None and row.id == self.id:
            txn.delete(BACKUPS, self.key)


def _same(txn: Txn, key: str, id: str) -> Backup:
    """The row, if it still is the one that is meant. Raises NotFound, Conflict."""
    row = txn.get(BACKUPS, key)
    if row.id != id:
        raise Conflict(f"Backup is another by now: {row.instance}/{row.name}")
    return row


COMMANDS: tuple[type[Command], ...] = (CreateBackup, FinishBackup, RenameBackup, RemoveBackup, DeleteBackup)
