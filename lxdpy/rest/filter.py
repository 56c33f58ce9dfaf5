"""PURE: LXD's filter language, `?filter=`: `[not] FIELD eq|ne VALUE [and|or …]`.

Values with spaces are quoted. Clauses are taken from left to right, `and` and `or` alike, as LXD does. Fields
are names on the wire, dotted into maps: `config.user.x`, `devices.eth0.type`. Words are compared without
case: the stock client sends `status eq running` and means `Running`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cluster.errors import Invalid

Row = Mapping[str, Any]
Filter = Callable[[Row], bool]

_WORD = re.compile(r'\s*(?:"([^"]*)"|\'([^\']*)\'|([^\s"\']\S*))(?=\s|$)')


class Clause(msgspec.Struct, frozen=True):
    field: str
    value: str
    negated: bool = False  # by `ne`, or by `not`; both cancel out
    joined_by_or: bool = False  # to what stands before it

    def holds(self, row: Row) -> bool:
        return (text_of(lookup(row, self.field)).casefold() == self.value.casefold()) != self.negated


def parse(text: str) -> Filter:
    """A test for rows. An empty text passes all. Raises Invalid, with what is missing."""
    clauses = clauses_of(words_of(text))
    if not clauses:
        return lambda row: True

    def passes(row: Row) -> bool:
        result = True
        for clause in clauses:
            holds = clause.holds(row)
            result = (result or holds) if clause.joined_by_or else (result and holds)
        return result

    return passes


def words_of(text: str) -> list[str]:
    words: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _WORD.match(text, at)
        if found is None:
            raise Invalid(f"Invalid filter: unterminated quote in {text!r}")
        words.append(next(part for part in found.groups() if part is not None))
        at = found.end()
    return words


def clauses_of(words: list[str]) -> list[Clause]:
    clauses: list[Clause] = []
    rest = iter(words)
    word = next(rest, None)
    joined_by_or = False
    while word is not None:
        negated = word.lower() == "not"
        field = _next(rest, "field") if negated else word
        operator = _next(rest, "operator").lower()
        if operator not in ("eq", "ne"):
            raise Invalid(f"Invalid filter: operator must be eq or ne, not {operator!r}")
        value = _next(rest, "value")
        clauses.append(Clause(field, value, negated != (operator == "ne"), joined_by_or))
        conjunction = next(rest, None)
        if conjunction is None:
            return clauses
        if conjunction.lower() not in ("and", "or"):
            raise Invalid(f"Invalid filter: clauses are joined by and or or, not {conjunction!r}")
        joined_by_or = conjunction.lower() == "or"
        word = _next(rest, "field")
    return clauses


def _next(words: Any, what: str) -> str:
    word: str | None = next(words, None)
    if word is None:
        raise Invalid(f"Invalid filter: clause has no {what}")
    return word


def lookup(row: Any, field: str) -> Any:
    """The value at a dotted path; keys may hold dots themselves, so the longest one that is there wins."""
    if not isinstance(row, Mapping):
        return None
    if field in row:
        return row[field]
    parts = field.split(".")
    for size in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:size])
        if name in row:
            return lookup(row[name], ".".join(parts[size:]))
    return None


def text_of(value: Any) -> str:
    """As it would be written in a filter; what is not there is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
