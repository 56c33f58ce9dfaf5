"""What all rows and commands must be, so that members of two versions can read one log."""

from collections.abc import Iterator
from typing import Any

import msgspec

from cluster.state.command import Command
from cluster.state.table import Stored
from lxdpy.resources.tables import COMMANDS, TABLES


def structs(of: Any) -> Iterator[type[msgspec.Struct]]:
    """All structs that a type holds, however deep."""
    if isinstance(of, msgspec.inspect.StructType):
        yield of.cls
        for field in of.fields:
            yield from structs(field.type)
        return
    for name in ("key_type", "value_type", "item_type"):
        yield from structs(getattr(of, name, None)) if hasattr(of, name) else ()
    for name in ("types", "item_types"):
        for inner in getattr(of, name, ()):
            yield from structs(inner)


def test_older_versions_stop_at_what_they_do_not_know_and_defaults_are_not_written() -> None:
    kinds = [table.row for table in TABLES] + list(COMMANDS)
    found = {struct for kind in kinds for struct in structs(msgspec.inspect.type_info(kind))}
    assert len(found) > len(kinds) / 2
    careless = [struct.__name__ for struct in found if not issubclass(struct, Stored | Command)]
    assert careless == [], "derive them from cluster.state.table.Stored"
