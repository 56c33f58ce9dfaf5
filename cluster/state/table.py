"""Typed names of the maps in the state, and the base of what is in them."""

from typing import Generic, TypeVar

import msgspec


class Stored(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Base of rows, and of all that rows and commands are made of.

    Members of two versions read the same log, so a field is only ever added, with the default that was true
    before there was such a field. At its default it is not written, and older members go on; with another
    value they stop, rather than lose what they cannot read. So a field, like a command, is not used before
    the cluster's level says that all members know it (`Command.level`).

    `gc=False`: rows are trees, and a million of them would stop the world for half a second again and again.
    """


Row = TypeVar("Row", bound=Stored)


class Table(Generic[Row]):
    """A map from key to row. Its name is in every snapshot: never renamed, never reused."""

    def __init__(self, name: str, row: type[Row]) -> None:
        self.name = name
        self.row = row

    def __repr__(self) -> str:
        return f"Table({self.name!r})"
