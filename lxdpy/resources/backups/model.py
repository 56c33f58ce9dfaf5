"""Backups of instances: rows, wire forms, bodies."""

from typing import Any, Literal

import msgspec

from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn

Status = Literal["Creating", "Ready", "Deleting"]


class Backup(Stored, frozen=True):
    """An instance as a file on its owner. Key: "project/instance/name"."""

    project: str
    instance: str
    name: str
    id: str  # the file's name
    status: Status = "Creating"
    created_at: float = 0.0
    expires_at: float = 0.0  # 0: never
    instance_only: bool = False
    optimized: bool = False  # as the pool's driver streams it

    @property
    def key(self) -> str:
        return f"{self.project}/{self.instance}/{self.name}"


BACKUPS: Table[Backup] = Table("backups", Backup)


def all_of(state: State | Txn, instance: str) -> list[Backup]:
    """Of the instance (key), oldest first; whatever their status."""
    start = f"{instance}/"
    found = [row for key, row in state.rows(BACKUPS).items() if key.startswith(start)]
    return sorted(found, key=lambda row: (row.created_at, row.name))


class BackupsPost(msgspec.Struct):
    name: str = ""
    expires_at: str | None = None
    instance_only: bool = False
    container_only: bool = False
    optimized_storage: bool = False
    compression_algorithm: str = ""


class BackupPost(msgspec.Struct):
    """Rename."""

    name: str = ""


Json = dict[str, Any]
