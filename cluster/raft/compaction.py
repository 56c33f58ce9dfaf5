"""Snapshots out of the state machine, and into it: the library's serializer hooks.

The state is immutable, so a thread writes it while entries are applied. What the thread wrote counts only
when the Raft thread renames it, and never if a newer snapshot was received meanwhile. The library tries a
rename of its own right after asking for a snapshot; there is no file of that name, it calls that a failure
to itself, and then asks `check` until told the truth.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pysyncobj.config import SERIALIZER_STATE

from cluster.errors import Error
from cluster.raft import snapshot
from cluster.raft.background import Spawn, in_thread
from cluster.raft.codec import Peer
from cluster.raft.journal import Journal
from cluster.raft.snapshot import Entry, Header
from cluster.state.machine import CannotApply, Machine
from cluster.state.txn import Change

log = logging.getLogger(__name__)

MAX_ENTRIES = 20_000  # in the log before a snapshot is made
MAX_JOURNAL = 16 << 20  # bytes
RETRY_EVERY = 30.0  # seconds after a failure


class Compaction:
    def __init__(
        self,
        folder: Path,
        machine: Machine,
        journal: Journal,
        *,
        now: Callable[[], float],
        on_load: Callable[[tuple[Change, ...]], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        """`on_load` hears what a received snapshot changed, `on_fatal` that one could not be read."""
        self.path = folder / "snapshot"
        self.max_entries = MAX_ENTRIES
        self.spawn: Spawn = in_thread
        self.booting = True  # the library loads the snapshot once by itself, when it starts
        self.index = 0  # of the snapshot on disk
        self._machine = machine
        self._journal = journal
        self._now = now
        self._on_load = on_load
        self._on_fatal = on_fatal
        self._written_path = folder / "snapshot.new"
        self._state = SERIALIZER_STATE.NOT_SERIALIZING
        self._written: int | None = None
        self._join: Callable[[], None] = lambda: None
        self._not_before = float("-inf")

    def due(self, applied: int) -> bool:
        if self._state != SERIALIZER_STATE.NOT_SERIALIZING or self._now() < self._not_before:
            return False
        if self._journal.is_shrinking:
            return False  # it is as long as before the last one
        grown = self._journal.bytes_on_disk > MAX_JOURNAL and applied > self.index + 1
        return grown or applied - self._journal.first > self.max_entries

    def close(self) -> None:
        """Wait for a snapshot being written: it must not appear in a folder somebody else uses."""
        self._join()

    # The library's hooks

    def serialize(self, _: str, data: tuple[Entry, Entry, Any]) -> None:
        last, previous, _cluster = data
        header = Header(last, previous, sorted(self._journal.voters(upto=last[1])))
        state, remembered = self._machine.state, self._machine.remembered()

        def write() -> None:
            written = False
            try:
                snapshot.write(self._written_path, header, self._machine.dump_chunks(state, remembered))
                written = True
            except OSError as error:
                log.error("snapshot: %s", error)  # the cause is all there is to know
            finally:
                if written:
                    self._written = last[1]
                else:
                    self._state = SERIALIZER_STATE.FAILED

        self._state = SERIALIZER_STATE.SERIALIZING
        self._join = self.spawn(write)

    def check(self) -> int:
        """Asked once per pass. SUCCESS lets the library drop what the snapshot covers."""
        if self._written is not None:
            self._state = self._publish(self._written)
            self._written = None
        state = self._state
        if state in (SERIALIZER_STATE.SUCCESS, SERIALIZER_STATE.FAILED):
            self._state = SERIALIZER_STATE.NOT_SERIALIZING
            if state == SERIALIZER_STATE.FAILED:
                self._not_before = self._now() + RETRY_EVERY
        return int(state)

    def _publish(self, index: int) -> int:
        if index <= self.index:
            return int(SERIALIZER_STATE.FAILED)  # a newer one was received
        try:
            snapshot.publish(self._written_path, self.path)
        except OSError as error:
            log.error("snapshot: %s", error)
            return int(SERIALIZER_STATE.FAILED)
        self.index = index
        return int(SERIALIZER_STATE.SUCCESS)

    def deserialize(self, _: str) -> tuple[Entry, Entry, set[Peer]]:
        """Load the snapshot on disk. The library swallows what is raised here and goes on, even to
        acknowledge: so the guard is told first, and nothing is sent any more."""
        try:
            return self._load()
        except (Error, CannotApply, OSError) as error:
            self._on_fatal(f"snapshot: {error}")
            raise

    def _load(self) -> tuple[Entry, Entry, set[Peer]]:
        header, chunks = snapshot.read(self.path)
        if not self.booting and header.last[1] < self._machine.state.index:
            raise CannotApply(f"snapshot of entry {header.last[1]} is older than the state")
        changes = self._machine.load(chunks)
        self.index = max(self.index, header.last[1])
        if self.booting:
            _, index, term = header.last
            known = self._journal.term_at(index) == term
            voters = self._journal.voters() if known else frozenset(header.voters)
        else:
            self._journal.expect_snapshot(header.voters)
            voters = frozenset(header.voters)
            self._on_load(changes)
        return header.last, header.previous, {Peer(voter) for voter in voters}
