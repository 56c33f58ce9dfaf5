"""PURE: what a follower makes of entries from the leader, before the library sees them.

The library cuts its log after the previous index whatever follows, so that a late or repeated message takes
acknowledged entries away; and it asks for one entry less per round trip to find where two logs part.
"""

from typing import Protocol

import msgspec

from cluster.raft.messages import Append
from cluster.raft.snapshot import Entry


class Log(Protocol):
    """The journal, as far as it matters here."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    def term_at(self, index: int) -> int | None: ...


class Take(msgspec.Struct, frozen=True):
    """Let the library append: nothing is cut unless it conflicts."""

    append: Append


class Known(msgspec.Struct, frozen=True):
    """All of it is here already, and more: only the commit index may have moved. Acknowledge `upto`."""

    upto: int
    commit: int


class Impossible(msgspec.Struct, frozen=True):
    """A committed entry is contradicted."""

    reason: str


Verdict = Take | Known | Impossible


def judge(append: Append, log: Log, committed: int) -> Verdict:
    """What to do with `append`. Raises ValueError if its entries have gaps."""
    append = _without_compacted(append, log)
    entries = append.entries
    if any(entry[1] != append.previous_index + offset for offset, entry in enumerate(entries, 1)):
        raise ValueError("entries do not follow each other")
    if log.term_at(append.previous_index) != append.previous_term:
        return Take(_with(append, []))  # the library answers that it needs earlier ones
    known = _count_known(entries, log)
    position = append.previous_index + known
    if known == len(entries) and position < log.last:
        return Known(upto=position, commit=min(append.commit, position))
    if position < log.last and position < committed:
        return Impossible(f"entry {position + 1} of the leader contradicts a committed one")
    term = log.term_at(position)
    assert term is not None
    return Take(
        msgspec.structs.replace(append, previous_index=position, previous_term=term, entries=entries[known:])
    )


def _without_compacted(append: Append, log: Log) -> Append:
    """What lies before the first entry here is committed, so it need not be compared."""
    if append.previous_index >= log.first:
        return append
    rest = [entry for entry in append.entries if entry[1] > log.first]
    if not rest or rest[0][1] != log.first + 1:
        return _with(append, [])
    term = log.term_at(log.first)
    assert term is not None
    return msgspec.structs.replace(append, previous_index=log.first, previous_term=term, entries=rest)


def _count_known(entries: list[Entry], log: Log) -> int:
    for count, (_, index, term) in enumerate(entries):
        if log.term_at(index) != term:
            return count
    return len(entries)


def _with(append: Append, entries: list[Entry]) -> Append:
    return msgspec.structs.replace(append, entries=entries)


def jump_back(wanted: int, log: Log, committed: int) -> int:
    """The next index to ask for after a conflict at `wanted`: the start of the whole conflicting term."""
    term = log.term_at(wanted)
    if term is None:
        return wanted
    lowest = max(log.first + 2, committed + 1)
    while wanted > lowest and log.term_at(wanted - 1) == term:
        wanted -= 1
    return wanted
