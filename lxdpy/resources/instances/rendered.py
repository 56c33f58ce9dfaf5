"""Instances and their snapshots as JSON, encoded once per version: a list of thousands copies bytes."""

from collections.abc import Callable, Mapping
from typing import Any, Generic

import msgspec

from cluster.membership.model import name_of
from cluster.state.table import Row, Table
from cluster.state.txn import State
from lxdpy.resources.backups.model import BACKUPS
from lxdpy.resources.backups.shown import wire as backup_wire
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import STATUS_CODES, Instance
from lxdpy.resources.instances.ready import status_of
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.projects.model import home
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot
from lxdpy.resources.snapshots.shown import wire as snapshot_wire
from lxdpy.resources.wire import rfc3339


class Entry(msgspec.Struct, frozen=True):
    """What was encoded from, compared by identity; and the bytes."""

    sources: tuple[Any, ...]
    text: bytes


class Rendered:
    """The cache of one member: by key, dropped when the row, a profile or its owner's name changes."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._snapshots_of = Grouped(SNAPSHOTS)
        self._backups_of = Grouped(BACKUPS)

    def instance(self, state: State, row: Instance) -> bytes:
        """The JSON object of recursion=1."""
        location = name_of(state, row.location)
        return self._text(state, row, location, lambda: wire(state, row, location))

    def snapshot(self, state: State, row: Snapshot) -> bytes:
        """The JSON object of a snapshot."""
        return self._text(state, row, "", lambda: snapshot_wire(state, row))

    def _text(self, state: State, row: Instance | Snapshot, location: str, make: Callable[[], Any]) -> bytes:
        own = home(state, row.project, "profiles")
        sources = (row, location, *(state.find(PROFILES, f"{own}/{name}") for name in row.profiles))
        known = self._entries.get(row.key)
        if known is not None and same(known.sources, sources):
            return known.text
        text = msgspec.json.encode(make())
        self._entries[row.key] = Entry(sources, text)
        return text

    def full(self, state: State, row: Instance, runtime: msgspec.Raw) -> msgspec.Raw:
        """The JSON object of recursion=2: with what the runtime says."""
        text = self.instance(state, row)
        backups = [backup_wire(one) for one in self._backups_of.of(state, row.key)]
        snapshots = [self.snapshot(state, one) for one in self._snapshots_of.of(state, row.key)]
        parts = (
            text[:-1],
            b',"backups":',
            msgspec.json.encode(backups) if backups else b"null",
            b',"state":',
            bytes(runtime),
            b',"snapshots":',
            b"[" + b",".join(snapshots) + b"]" if snapshots else b"null",
            b"}",
        )
        return msgspec.Raw(b"".join(parts))

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)


class Grouped(Generic[Row]):
    """What is ready of instances' files, by instance: looked through once for each version of the table."""

    def __init__(self, table: Table[Row]) -> None:
        self._table = table
        self._rows: Mapping[str, Row] = {}
        self._groups: dict[str, list[Row]] = {}

    def of(self, state: State, instance: str) -> list[Row]:
        """Of the instance (key), oldest first."""
        rows: Mapping[str, Any] = state.rows(self._table)
        if rows is not self._rows:
            groups: dict[str, list[Row]] = {}
            for row in sorted(rows.values(), key=lambda one: (one.created_at, one.name)):
                if row.status == "Ready":
                    groups.setdefault(f"{row.project}/{row.instance}", []).append(row)
            self._rows, self._groups = rows, groups
        return self._groups.get(instance, [])


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(a is b or a == b for a, b in zip(one, other, strict=True))


def wire(state: State, row: Instance, location: str) -> dict[str, Any]:
    config, devices = expanded(state, row)
    return {
        "architecture": row.architecture,
        "config": row.config,
        "devices": row.devices,
        "ephemeral": row.ephemeral,
        "profiles": list(row.profiles),
        "stateful": row.stateful,
        "description": row.description,
        "created_at": rfc3339(row.created_at),
        "expanded_config": config,
        "expanded_devices": devices,
        "name": row.name,
        "status": status_of(row),
        "status_code": STATUS_CODES[status_of(row)],
        "last_used_at": rfc3339(row.last_used_at, "1970-01-01T00:00:00Z"),
        "location": location,
        "type": row.type,
        "project": row.project,
    }
