"""Machine: applies log entries to the state; dumps and loads it.

Called from the Raft thread only; `Machine.state` may be read from any thread.
"""

import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cluster.errors import Error, ErrorInfo, Unavailable
from cluster.state.command import Command, Proposal
from cluster.state.plain import plain
from cluster.state.schema import SCHEMA, upgrade
from cluster.state.table import Table
from cluster.state.txn import EMPTY, Change, Draft, State, Txn

log = logging.getLogger(__name__)

REMEMBERED = 20_000  # request ids kept; a proposer gives up after seconds, so minutes of full load are enough
ROWS_PER_CHUNK = 500  # packs in about 2 ms: the longest the snapshot thread keeps the GIL from the others


class CannotApply(Exception):
    """This member cannot do what the others may have done: going on would diverge. The member must stop."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one proposal: refused if `error` is set, and then nothing changed."""

    index: int
    error: ErrorInfo | None = None
    changes: tuple[Change, ...] = ()


class Header(msgspec.Struct, frozen=True):
    """First chunk of a dump."""

    schema: int
    index: int
    level: int = 1  # the cluster's feature level


class Chunk(msgspec.Struct, frozen=True):
    """Rows of one table, or remembered requests (table "")."""

    table: str
    rows: list[tuple[str, msgspec.Raw]]


class Machine:
    """The state machine: all tables and all commands of the program, known by name and tag.

    `features` is the feature level this version has; `level` says which one all members of a state have.
    """

    def __init__(
        self,
        tables: Iterable[Table[Any]],
        commands: Sequence[type[Command]],
        *,
        features: int = 1,
        level: Callable[[State], int] = lambda _: 1,
    ) -> None:
        self.state = State()
        self._features = features
        self._level = level
        self._tables: Mapping[str, Table[Any]] = {table.name: table for table in tables}
        self._decode = _decoder(commands)
        self._done: OrderedDict[str, ErrorInfo | None] = OrderedDict()

    def admit(self, command: Command) -> None:
        """Raises Unavailable if some member would not understand it. A level never sinks, so what is
        admitted is understood wherever it is applied later."""
        needed, common = command.level(), self._level(self.state)
        if needed > common:
            raise Unavailable(
                f"This needs feature level {needed}; the cluster has {common} until all members are updated"
            )

    def apply(self, index: int, entry: bytes) -> Outcome:
        """Apply one proposal of the log entry at `index`.

        A repeated request id gives the first answer again and changes nothing. A refusal, or a bug in a
        command, is an answer: it strikes all members alike, so they stay equal. Raises CannotApply where
        others may fare better.
        """
        proposal, command = self._read(index, entry)
        if proposal.request_id in self._done:
            self.state = self.state.at(index)
            return Outcome(index, self._done[proposal.request_id])
        draft = Draft(self.state, index)
        txn = Txn(draft, proposal.proposed_at, proposal.by)
        error = _run(command, txn, index)
        self.state = self.state.at(index) if error else draft.publish()
        self._check_level("the cluster", self._level(self.state))
        self._remember(proposal.request_id, error)
        return Outcome(index, error, () if error else tuple(txn.changes))

    def _read(self, index: int, entry: bytes) -> tuple[Proposal, Command]:
        try:
            proposal = msgspec.msgpack.decode(entry, type=Proposal)
            self._check_level(f"entry {index}", proposal.level)
            return proposal, self._decode.decode(proposal.command)
        except (msgspec.MsgspecError, ValueError) as unreadable:
            raise CannotApply(f"entry {index}: this version cannot read it: {unreadable}") from unreadable

    def _check_level(self, what: str, level: int) -> None:
        if level > self._features:
            raise CannotApply(
                f"{what} is of feature level {level}, this version has {self._features}: update this member"
            )

    def _remember(self, request_id: str, error: ErrorInfo | None) -> None:
        self._done[request_id] = error
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def remembered(self) -> Iterator[tuple[str, ErrorInfo | None]]:
        """The requests answered so far, oldest first: taken with `state` for a dump, on the Raft thread.

        To be gone through once, on any thread: to make 20,000 pairs at once takes as long as many writes.
        """
        return zip(list(self._done), list(self._done.values()), strict=True)

    def dump_chunks(
        self, state: State, remembered: Iterable[tuple[str, ErrorInfo | None]] = ()
    ) -> Iterator[bytes]:
        """`state` as msgpack chunks; may run in another thread, as both arguments never change."""
        pack = msgspec.msgpack.encode
        yield pack(Header(SCHEMA, state.index, self._level(state)))
        for name in sorted(state.tables):
            rows = state.tables[name]
            for keys in _slices(
                list(rows)
            ):  # in this order they are loaded, so that it is the same everywhere
                yield pack(Chunk(name, [(key, msgspec.Raw(pack(rows[key]))) for key in keys]))
        for part in _slices(list(remembered)):
            yield pack(Chunk("", [(key, msgspec.Raw(pack(error))) for key, error in part]))

    def load(self, chunks: Iterable[bytes]) -> tuple[Change, ...]:
        """Replace the state by a dump; returns the difference to what was there. Raises CannotApply."""
        unpack = msgspec.msgpack.decode
        source = iter(chunks)
        try:
            header = unpack(next(source), type=Header)
            self._check_level("snapshot", header.level)
            parts = [unpack(part, type=Chunk) for part in source]
            tables: dict[str, dict[str, Any]] = {}
            done: OrderedDict[str, ErrorInfo | None] = OrderedDict()
            for part in upgrade(header.schema, parts):
                if not part.table:
                    done.update((key, unpack(raw, type=ErrorInfo | None)) for key, raw in part.rows)
                    continue
                row = self._tables[part.table].row
                tables.setdefault(part.table, {}).update(
                    (key, unpack(raw, type=row)) for key, raw in part.rows
                )
        except (msgspec.MsgspecError, KeyError, StopIteration, ValueError) as unreadable:
            raise CannotApply(f"snapshot: {unreadable!r}") from unreadable
        changes = tuple(difference(self.state.tables, tables))
        self.state = State(header.index, tables)
        self._done = done
        return changes


def _run(command: Command, txn: Txn, index: int) -> ErrorInfo | None:
    try:
        command.apply(txn)
    except Error as refusal:
        return refusal.info()
    except (MemoryError, RecursionError) as weakness:
        raise CannotApply(f"entry {index}: {weakness!r}") from weakness
    except Exception as bug:
        log.exception("bug in %s", type(command).__name__)
        return ErrorInfo("internal", f"{type(bug).__name__}: {bug}")
    return None


def _decoder(commands: Sequence[type[Command]]) -> msgspec.msgpack.Decoder[Command]:
    union: Any = commands[0]
    for command in commands[1:]:
        union = union | command
    return msgspec.msgpack.Decoder(union)


def _slices(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), ROWS_PER_CHUNK):
        yield items[start : start + ROWS_PER_CHUNK]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """The changes that lead from one set of tables to another."""
    for table in sorted({*old, *new}):
        before, after = old.get(table, EMPTY), new.get(table, EMPTY)
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                yield Change(table, key, before.get(key), after.get(key))


def digest(state: State) -> str:
    """A checksum that is equal on members that hold equal tables; the index is not part of it.

    Fields count where they differ from their defaults, so a version that adds one comes to the same digest.
    """
    crc = 0
    for name in sorted(state.tables):
        rows = state.tables[name]
        for key in sorted(rows):
            crc = zlib.crc32(msgspec.msgpack.encode((name, key, plain(rows[key])), order="sorted"), crc)
    return f"{crc:08x}"
