"""Snapshots of instances: rows, wire forms, bodies."""

from typing import Any, Literal

import msgspec

from cluster.state.table import Stored, Table
from cluster.state.txn import State, Txn
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.remotes.model import Target

Status = Literal["Creating", "Ready", "Deleting"]


class Snapshot(Stored, frozen=True):
    """An instance as it was. Key: "project/instance/name".

    The instance's owner has it on disk; what it was made of stays as it is, whatever becomes of the instance.
    """

    project: str
    instance: str
    name: str
    id: str  # its name on disk; of one instance only
    status: Status = "Creating"
    created_at: float = 0.0
    expires_at: float = 0.0  # 0: never
    architecture: str = ""
    description: str = ""
    config: Config = {}
    devices: Devices = {}
    profiles: tuple[str, ...] = ()
    ephemeral: bool = False
    last_used_at: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.project}/{self.instance}/{self.name}"


class Slot(Stored, frozen=True):
    """How far a schedule was followed: all slots up to `done` (unix seconds) are settled."""

    schedule: str
    done: float


SNAPSHOTS: Table[Snapshot] = Table("snapshots", Snapshot)


def all_of(state: State | Txn, instance: str) -> list[Snapshot]:
    """Of the instance (key), oldest first; whatever their status."""
    start = f"{instance}/"
    found = [row for key, row in state.rows(SNAPSHOTS).items() if key.startswith(start)]
    return sorted(found, key=lambda row: (row.created_at, row.name))


def snapshots_of(state: State | Txn, instance: str) -> list[Snapshot]:
    """Those that are there, oldest first."""
    return [row for row in all_of(state, instance) if row.status == "Ready"]


class SnapshotsPost(msgspec.Struct):
    name: str = ""
    stateful: bool = False
    expires_at: str | None = None  # null: as `snapshots.expiry` says; Go's zero time: never


class SnapshotPut(msgspec.Struct):
    expires_at: str | None = None


class SnapshotPost(msgspec.Struct):
    """Rename."""

    name: str = ""
    migration: bool = False
    target: Target | None = None


Json = dict[str, Any]
