"""The whole state as maps, lists and scalars, for people and YAML; and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cluster.errors import Invalid
from cluster.state.plain import plain
from cluster.state.table import Table
from cluster.state.txn import Rows, State

Plain = dict[str, dict[str, Any]]  # table -> key -> fields that are not as by default


def exported(state: State) -> Plain:
    return {
        name: {key: plain(rows[key]) for key in sorted(rows)}
        for name, rows in sorted(state.tables.items())
        if rows
    }


def imported(tables: Iterable[Table[Any]], given: Plain) -> Mapping[str, Rows]:
    """The rows; raises Invalid, naming table, key and field, for what is none of them."""
    kinds = {table.name: table.row for table in tables}
    if unknown := sorted(given.keys() - kinds.keys()):
        raise Invalid(f"No such table: {unknown[0]}", table=unknown[0])
    return {
        name: {key: _row(name, key, row, kinds[name]) for key, row in rows.items()}
        for name, rows in given.items()
    }


def _row(table: str, key: str, given: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{table}, {key}: {error}", table=table, key=key) from None
