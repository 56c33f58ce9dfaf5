"""The Raft log on disk: entries, term, vote, commit index and membership, checksummed and synced.

It has the library's Journal interface (camelCase methods). Everything is kept in memory too; what was added
is durable after `sync`, which is one write and one fdatasync for any number of records. Term and vote are
durable when `setCurrentTerm` returns. Compaction writes a new file.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import overload

import msgspec

from cluster.raft.background import Spawn, in_thread
from cluster.raft.codec import NO_OP, membership
from cluster.raft.frames import Damaged, FrameFile
from cluster.raft.snapshot import Entry

TRAILING_ENTRIES = 1000  # kept at compaction, so that a member that was away for seconds needs no snapshot
PART = 256 << 10  # bytes of entries packed at once when the log is rewritten
TRAILING_BYTES = 4 << 20  # but not more than this, or large entries would be rewritten again and again


TAKE_OVER = "take-over"  # a file beside the log: recover.py is not done with this folder


class Identity(msgspec.Struct, frozen=True):
    """Whose log this is. Ids, never names or addresses, which may change."""

    cluster_id: str
    member_id: str


class _Kind(IntEnum):
    META = 0
    ENTRY = 1
    TRUNCATE = 2
    TERM = 3
    COMMIT = 4


class _Meta(msgspec.Struct, frozen=True):
    cluster: str
    member: str
    voters: list[str]  # before the first entry


_RECORD = struct.Struct("<BI")  # kind, length
_INDEX = struct.Struct("<Q")
_ENTRY = struct.Struct("<QQ")  # index, term; the command follows


class Journal:
    """Used by the Raft thread only. Raises Damaged when opened; an OSError of any method is fail-stop."""

    def __init__(
        self, path: Path, identity: Identity, voters: Sequence[str] = (), *, look_only: bool = False
    ) -> None:
        """`voters` count only if there is no file yet. With `look_only` nothing is written, not even what
        every start writes, and nothing may be added."""
        self.identity = identity
        self.trailing = TRAILING_ENTRIES
        self._file = FrameFile(path)
        self._entries: list[Entry] = []
        self._base_voters = sorted(voters)  # before the first entry
        self._next_base: list[str] | None = None  # voters of a snapshot that is about to replace the log
        self._changes: list[tuple[int, str, str]] = []  # (index, "add" or "rem", member id)
        self._voters: frozenset[str] | None = None  # by all of these; None after any of them changed
        self._term = 0
        self._vote: str | None = None
        self._commit = self._commit_saved = 1
        self._pending = bytearray()
        self._rewrite = True  # the file is not what it should be
        self._shrink = False  # it has more than it should
        self.spawn: Spawn = in_thread
        if path.exists():
            self._load()
        if not look_only:
            self.sync()

    def _load(self) -> None:
        for payload in self._file.load():
            self._replay(payload)
        if self._entries:
            # A commit index past the end would commit whatever is appended there next.
            self._commit = min(self._commit, self.last)

    def _replay(self, payload: bytes) -> None:
        for kind, data in _records(payload):
            if kind == _Kind.ENTRY:
                self._remember((data[_ENTRY.size :], *_ENTRY.unpack_from(data)))
            elif kind == _Kind.TRUNCATE:
                self._forget_from(*_INDEX.unpack(data))
            elif kind == _Kind.TERM:
                self._term, self._vote = msgspec.msgpack.decode(data)
            elif kind == _Kind.COMMIT:
                (self._commit,) = _INDEX.unpack(data)
            elif kind == _Kind.META:
                self._check_owner(msgspec.msgpack.decode(data, type=_Meta))

    def _check_owner(self, meta: _Meta) -> None:
        if (meta.cluster, meta.member) != (self.identity.cluster_id, self.identity.member_id):
            raise Damaged(
                f"{self._file.path} belongs to member {meta.member} of cluster {meta.cluster}",
                member=meta.member,
                cluster=meta.cluster,
            )
        self._base_voters = meta.voters
        self._voters = None

    # Durability

    @property
    def bytes_on_disk(self) -> int:
        return self._file.size

    @property
    def is_shrinking(self) -> bool:
        """What was compacted away is still in the file."""
        return self._shrink or self._file.is_rewriting

    @property
    def syncs(self) -> int:
        return self._file.syncs

    def sync(self) -> None:
        """Make all that was added durable. Raises OSError: then nobody knows what is on disk."""
        if self._rewrite:
            self._file.replace(self._image())
            self._rewrite = self._shrink = False
        else:
            self._file.settle()
            if self._pending:
                if self._commit != self._commit_saved:
                    self._pending += _record(_Kind.COMMIT, _INDEX.pack(self._commit))
                self._file.append(bytes(self._pending))
            if self._shrink:
                self._file.rewrite(self._image(), self.spawn)
                self._shrink = False
            elif not self._pending:
                return
        self._commit_saved = self._commit
        self._pending.clear()

    def _image(self) -> Iterator[bytes]:
        """All that is known now, packed in parts as they are asked for: in another thread, if need be."""
        identity = self.identity
        meta = _Meta(identity.cluster_id, identity.member_id, self._base_voters)
        return _parts(meta, (self._term, self._vote), self._entries.copy(), self._commit)

    def _add_record(self, record: bytes) -> None:
        if not self._rewrite:
            self._pending += record

    def close(self) -> None:
        """Sync and close; closing again does nothing."""
        if self._commit != self._commit_saved:
            self._add_record(_record(_Kind.COMMIT, _INDEX.pack(self._commit)))
            self._commit_saved = self._commit
        self.sync()
        self._file.close()

    # What it knows

    @property
    def first(self) -> int:
        return self._entries[0][1]

    @property
    def last(self) -> int:
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        return self._entries[-1][2]

    def term_at(self, index: int) -> int | None:
        """None if the entry was compacted away or is yet to come."""
        position = index - self._entries[0][1] if self._entries else -1
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    def voters(self, upto: int | None = None) -> frozenset[str]:
        """Voters by all entries in the log, committed or not (Raft's rule), or up to an index."""
        if upto is None and self._voters is not None:
            return self._voters
        voters = set(self._base_voters)
        for index, verb, member in self._changes:
            if upto is not None and index > upto:
                break
            if verb == "add":
                voters.add(member)
            else:
                voters.discard(member)
        if upto is None:
            self._voters = frozenset(voters)
        return frozenset(voters)

    @property
    def last_change(self) -> int:
        """Index of the newest membership entry, 0 if there is none."""
        return self._changes[-1][0] if self._changes else 0

    def align(self, last: Entry, voters: Sequence[str]) -> bool:
        """At start: make the log begin with what the snapshot ends with, keeping all entries after it.
        False: it has no such entry, and begins anew with the snapshot and these voters.

        The library would clear a log that does not begin exactly there, with acknowledged entries in it.
        Raises Damaged if entries between the two are missing.
        """
        _, index, term = last
        if self._entries and self.term_at(index) == term and self.term_at(index - 1) is not None:
            self._drop_before(index - 1)
            return True
        if self._entries and self.first > index:
            raise Damaged(f"{self._file.path} starts at entry {self.first}, the snapshot ends at {index}")
        self._next_base = sorted(voters)  # the library will clear the log and begin it anew
        return False

    def expect_snapshot(self, voters: Sequence[str]) -> None:
        """The log is about to be cleared for a snapshot with these voters."""
        self._next_base = sorted(voters)

    def become_alone(self, identity: Identity) -> None:
        """The log of another cluster, in which this member is the only voter; for recover.py."""
        self.identity = identity
        self._base_voters = [identity.member_id]
        self._entries = [without_vote(entry) for entry in self._entries]
        self._changes = []
        self._voters = None
        self._term, self._vote = self._term + 1, None
        self._rewrite = True
        self.sync()

    # Memory image

    def _remember(self, entry: Entry) -> None:
        command, index, _ = entry
        if self._entries and index != self.last + 1:
            raise Damaged(f"{self._file.path}: entry {index} after {self.last}")
        self._entries.append(entry)
        change = membership(command)
        if change is not None:
            self._changes.append((index, *change))
            self._voters = None

    def _forget_from(self, index: int) -> None:
        del self._entries[max(0, index - self.first) :]
        self._changes = [change for change in self._changes if change[0] < index]
        self._voters = None

    def _drop_before(self, index: int) -> None:
        if index <= self.first:
            return
        self._base_voters = sorted(self.voters(upto=index - 1))
        self._changes = [change for change in self._changes if change[0] >= index]
        self._voters = None
        self._entries = self._entries[index - self.first :]
        self._shrink = True

    # The library's interface

    def add(self, command: bytes, index: int, term: int) -> None:
        entry = (bytes(command), index, term)
        self._remember(entry)
        self._add_record(_entry_record(entry))

    def clear(self) -> None:
        self._base_voters = sorted(self.voters()) if self._next_base is None else self._next_base
        self._next_base = None
        self._entries = []
        self._changes = []
        self._voters = None
        self._pending.clear()
        self._rewrite = True

    def deleteEntriesFrom(self, position: int) -> None:
        if position >= len(self._entries):
            return
        index = self.first + position
        self._forget_from(index)
        self._add_record(_record(_Kind.TRUNCATE, _INDEX.pack(index)))

    def deleteEntriesTo(self, position: int) -> None:
        """A snapshot covers all before `position`; some of them are kept for followers."""
        keep, size = 0, 0
        while keep < min(self.trailing, position):
            size += len(self._entries[position - keep - 1][0])
            if size > TRAILING_BYTES:
                break
            keep += 1
        self._drop_before(self.first + position - keep)

    @overload
    def __getitem__(self, position: int) -> Entry: ...
    @overload
    def __getitem__(self, position: slice) -> list[Entry]: ...
    def __getitem__(self, position: int | slice) -> Entry | list[Entry]:
        return self._entries[position]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, index: int) -> None:
        self._commit = index

    def getRaftCommitIndex(self) -> int:
        return self._commit

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        self._term, self._vote = term, vote
        self._add_record(_record(_Kind.TERM, msgspec.msgpack.encode((term, vote))))
        self.sync()

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def onOneSecondTimer(self) -> None:
        """The commit index needs no timer: it is written with whatever is written next."""

    def _destroy(self) -> None:
        self.close()


def identity_of(path: Path) -> Identity:
    """Whose log it is. Raises Damaged, OSError."""
    for payload in FrameFile(path).load():
        for kind, data in _records(payload):
            if kind == _Kind.META:
                meta = msgspec.msgpack.decode(data, type=_Meta)
                return Identity(meta.cluster, meta.member)
    raise Damaged(f"{path}: nobody's log")


def without_vote(entry: Entry) -> Entry:
    """The entry, if it changes the voters one that does nothing, at the same place in the same term."""
    command, index, term = entry
    return (NO_OP, index, term) if membership(command) else entry


def _parts(
    meta: _Meta, vote: tuple[int, str | None], entries: Sequence[Entry], commit: int
) -> Iterator[bytes]:
    """Payloads of frames; whole they are only with the last, which has the commit index."""
    part = bytearray()
    part += _record(_Kind.META, msgspec.msgpack.encode(meta))
    part += _record(_Kind.TERM, msgspec.msgpack.encode(vote))
    for entry in entries:
        part += _entry_record(entry)
        if len(part) > PART:
            yield bytes(part)
            part.clear()
    yield bytes(part + _record(_Kind.COMMIT, _INDEX.pack(commit)))


def _record(kind: _Kind, data: bytes) -> bytes:
    return _RECORD.pack(kind, len(data)) + data


def _entry_record(entry: Entry) -> bytes:
    command, index, term = entry
    return _record(_Kind.ENTRY, _ENTRY.pack(index, term) + command)


def _records(payload: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(payload):
        kind, length = _RECORD.unpack_from(payload, offset)
        start, offset = offset + _RECORD.size, offset + _RECORD.size + length
        yield kind, payload[start:offset]
