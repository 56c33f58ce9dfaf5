"""State: an immutable snapshot. Txn: one command's view of the next one. Change: a row before and after."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.errors import AlreadyExists, NotFound
from cluster.state.layers import NOTHING, Layers
from cluster.state.table import Row, Table
from cluster.state.trail import Step, Trail

Rows = Mapping[str, Any]
EMPTY: Rows = NOTHING


class Change(msgspec.Struct, frozen=True):
    """One row before and after. `before` is None for a new row, `after` for one that is gone."""

    table: str
    key: str
    before: Any
    after: Any
    by: dict[str, str] = {}  # who asked for it: username, protocol, address; empty for the daemons themselves


class State:
    """What the cluster agrees on, as of log index `index`. Never changed once published."""

    __slots__ = ("index", "tables", "trail")

    def __init__(
        self, index: int = 0, tables: Mapping[str, Rows] = EMPTY, trail: Trail | None = None
    ) -> None:
        self.index = index
        self.tables = tables
        self.trail = trail or Trail()

    def at(self, index: int) -> "State":
        """The same rows, as of another index."""
        return State(index, self.tables, self.trail)

    def rows(self, table: Table[Row]) -> Mapping[str, Row]:
        return self.tables.get(table.name, EMPTY)

    def find(self, table: Table[Row], key: str) -> Row | None:
        return self.rows(table).get(key)

    def get(self, table: Table[Row], key: str) -> Row:
        """Raises NotFound, with a message for users."""
        return found(table, key, self.find(table, key))


class Txn:
    """One command's view: reads what the commands before it did, writes for those after it.

    A refused command changes nothing, as its draft is not published.
    """

    def __init__(self, draft: "Draft", now: float, by: dict[str, str]) -> None:
        self.now = now
        self.by = by
        self.changes: list[Change] = []
        self._draft = draft

    @property
    def index(self) -> int:
        """Log index of the entry being applied."""
        return self._draft.index

    def rows(self, table: Table[Row]) -> Mapping[str, Row]:
        return self._draft.rows(table.name)

    def find(self, table: Table[Row], key: str) -> Row | None:
        return self.rows(table).get(key)

    def get(self, table: Table[Row], key: str) -> Row:
        """Raises NotFound, with a message for users."""
        return found(table, key, self.find(table, key))

    def insert(self, table: Table[Row], key: str, row: Row) -> None:
        """Raises AlreadyExists."""
        if self.find(table, key) is not None:
            raise AlreadyExists(f"{noun(table)} already exists: {label(key)}", table=table.name, key=key)
        self.put(table, key, row)

    def replace(self, table: Table[Row], key: str, row: Row) -> None:
        """Raises NotFound."""
        self.get(table, key)
        self.put(table, key, row)

    def put(self, table: Table[Row], key: str, row: Row) -> None:
        """Insert or replace. Writing an equal row is no change."""
        before = self.find(table, key)
        if before == row:
            return
        self._draft.put(table.name, key, row)
        self.changes.append(Change(table.name, key, before, row, self.by))

    def delete(self, table: Table[Row], key: str) -> None:
        """Raises NotFound."""
        before = self.get(table, key)
        self._draft.delete(table.name, key)
        self.changes.append(Change(table.name, key, before, None, self.by))


class Draft:
    """The next state while one proposal is applied: tables are copied when first written."""

    def __init__(self, base: State, index: int) -> None:
        self.index = index
        self._base = base
        self._copies: dict[str, Layers] = {}
        self._touched: list[Step] = []

    def rows(self, table: str) -> Rows:
        if table in self._copies:
            return self._copies[table]
        return self._base.tables.get(table, EMPTY)

    def put(self, table: str, key: str, row: Any) -> None:
        self._writable(table).put(key, row)
        self._touched.append((table, key))

    def delete(self, table: str, key: str) -> None:
        self._writable(table).delete(key)
        self._touched.append((table, key))

    def _writable(self, table: str) -> Layers:
        if table not in self._copies:
            rows = self._base.tables.get(table, EMPTY)
            self._copies[table] = rows.copy() if isinstance(rows, Layers) else Layers(rows)
        return self._copies[table]

    def publish(self) -> State:
        if not self._copies:
            return self._base.at(self.index)
        tables = {**self._base.tables, **self._copies}
        return State(self.index, tables, self._base.trail.after(self._touched))


def found(table: Table[Row], key: str, row: Row | None) -> Row:
    if row is None:
        raise NotFound(f"{noun(table)} not found: {label(key)}", table=table.name, key=key)
    return row


def noun(table: Table[Any]) -> str:
    """`Instance` of the table `instances`: table names are plurals."""
    words = table.name.replace("_", " ").replace("-", " ")
    return (words[:-3] + "y" if words.endswith("ies") else words.removesuffix("s")).capitalize()


def label(key: str) -> str:
    """A key as users know it: without the default project in front."""
    return key.removeprefix("default/")
