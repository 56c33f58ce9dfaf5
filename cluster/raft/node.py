"""Node: one member of the Raft group, without threads or sockets.

Whoever drives it calls `step` after anything that happened (a message, a proposal, a link) and from time to
time; all calls and all callbacks are in that one thread.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pysyncobj import FAIL_REASON

from cluster.raft import batches, codec, snapshot
from cluster.raft.batches import NOT_TAKEN, UNKNOWN, Batches, OnReply, Reply
from cluster.raft.compaction import Compaction
from cluster.raft.core import LEADER, SURELY_NOT, Core, options, snapshot_hooks
from cluster.raft.desk import Send, Wire
from cluster.raft.frames import Damaged
from cluster.raft.guard import Guard
from cluster.raft.journal import TAKE_OVER, Identity, Journal
from cluster.raft.reads import Reader
from cluster.raft.snapshot import Header
from cluster.state.command import Proposal
from cluster.state.machine import CannotApply, Machine
from cluster.state.txn import Change, State

LEFTOVERS = ("snapshot.new", "snapshot.tmp", "snapshot.1.tmp", "journal.new")
CAUGHT_UP = 1000  # entries a learner may lag behind and still be made a voter


class Applied(msgspec.Struct, frozen=True):
    """What one proposal changed; or what a snapshot changed, that this member received instead of entries."""

    state: State
    changes: tuple[Change, ...]
    proposed_at: float  # unix seconds, the proposer's clock
    snapshot: bool = False


class Hooks(msgspec.Struct, frozen=True):
    """How a node reaches the world."""

    send: Send  # may only collect
    write_out: Callable[[], None]  # put what was collected on its way
    on_applied: Callable[[Applied], None]
    on_fatal: Callable[[str], None]
    now: Callable[[], float] = time.monotonic


class Node:
    """Raises Damaged when built on files that cannot be believed."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        machine: Machine,
        hooks: Hooks,
        *,
        voters: Sequence[str],
        fresh: bool,
    ) -> None:
        codec.install()
        self.me = identity.member_id
        self._machine = machine
        self._hooks = hooks
        header = _inspect(folder, voters=voters, fresh=fresh)
        self.journal = Journal(folder / "journal", identity, voters)
        others = _aligned(self.journal, header)
        wire = Wire(hooks.send, hooks.write_out)
        self.guard = Guard(self.journal, wire, now=hooks.now, on_fatal=hooks.on_fatal)
        self.desk = self.guard.desk
        self.compaction = Compaction(
            folder,
            machine,
            self.journal,
            now=hooks.now,
            on_load=self._snapshot_loaded,
            on_fatal=self.desk.fatal,
        )
        self.compaction.index = header.last[1] if header else 0
        self.batches = Batches(self._commit)
        hooked = snapshot_hooks(
            self.compaction.path,
            self.compaction.serialize,
            self.compaction.deserialize,
            self.compaction.check,
        )
        conf = options(journalFile=self.journal, onStateChanged=self._on_state, **hooked)
        self._core = Core(self.me, others - {self.me}, conf, self.guard, self._apply)
        self.guard.bind(self._core)

    # Driving

    def step(self) -> bool:
        """One pass. True: there is more to do at once. Afterwards look at `failed`."""
        guard = self.guard
        if guard.failed:
            return False
        guard.before_pass()
        self.batches.pump()
        if not self.desk.sync():  # before the library may count what was appended since the last pass
            return False
        self._core.doTick(0)
        self.compaction.booting = False
        self._core.follow(self.journal.voters())
        self.desk.flush()
        if self.compaction.due(self.applied):
            self._core.forceLogCompaction()
        return guard.alone and self.journal.last > self._core.raftCommitIndex and not guard.failed

    def receive(self, member: str, message: Any) -> None:
        self.guard.receive(member, message)
        if not self.guard.failed:
            self._core.follow(self.journal.voters())

    @property
    def failed(self) -> str | None:
        return self.guard.failed

    def close(self) -> None:
        """Waits for a snapshot being written. Raises OSError if the journal cannot be synced."""
        self.compaction.close()
        if self.guard.failed is None:
            self._core.destroy()

    def _on_state(self, old: int, new: int) -> None:
        self.guard.on_state(old, new)
        if old == LEADER:
            self.batches.give_up()

    # What it knows

    @property
    def is_leader(self) -> bool:
        return self.desk.leads

    @property
    def leader(self) -> str | None:
        return self.guard.leader

    @property
    def term(self) -> int:
        return int(self._core.raftCurrentTerm)

    @property
    def applied(self) -> int:
        return int(self._core.raftLastApplied)

    @property
    def committed(self) -> int:
        return int(self._core.raftCommitIndex)

    @property
    def voters(self) -> frozenset[str]:
        return self.journal.voters()

    # Writes and reads

    def propose(self, entry: bytes, reply: OnReply) -> None:
        """Put a packed Proposal into the log. Only a leader takes it."""
        if not self.is_leader or self.guard.failed:
            reply(NOT_TAKEN)
        else:
            self.batches.add(entry, reply)

    def read_index(self, reader: Reader) -> None:
        self.guard.reads.read_index(reader)

    def _commit(self, blob: bytes, done: Callable[[Sequence[Reply] | Reply], None]) -> None:
        self._core.entry(blob, callback=lambda result, reason: done(_replies(result, reason)))

    def _apply(self, blob: bytes) -> list[Reply]:
        index = self.applied + 1
        try:
            return [self._apply_proposal(index, entry) for entry in batches.unpack(blob)]
        except (CannotApply, msgspec.MsgspecError) as error:
            # The library would log it and apply the entry again at every pass.
            self.desk.fatal(f"entry {index}: {error}")
            raise

    def _apply_proposal(self, index: int, entry: bytes) -> Reply:
        outcome = self._machine.apply(index, entry)
        if outcome.changes and not self.compaction.booting:
            proposed_at = msgspec.msgpack.decode(entry, type=Proposal).proposed_at
            self._hooks.on_applied(Applied(self._machine.state, outcome.changes, proposed_at))
        return Reply(index, outcome.error)

    def _snapshot_loaded(self, changes: tuple[Change, ...]) -> None:
        self._hooks.on_applied(Applied(self._machine.state, changes, time.time(), snapshot=True))

    # Membership: one change at a time, at the leader

    def change(self, verb: str, member: str, reply: OnReply) -> None:
        """Make `member` a voter ("add") or not ("rem"). Answered NOT_TAKEN as long as it is too early."""
        if not self.is_leader or self.guard.failed or not self._may_change(verb, member):
            reply(NOT_TAKEN)
            return
        method = self._core.addNodeToCluster if verb == "add" else self._core.removeNodeFromCluster
        method(codec.Peer(member), callback=lambda _, reason: reply(_membership_reply(reason)))

    def _may_change(self, verb: str, member: str) -> bool:
        if self.journal.last_change > self.committed or member == self.me:
            return False  # two changes at once can make two majorities
        if verb == "rem":
            return True
        # A voter that is not there could take the majority away from those that are.
        match = self.guard.leading.match.get(member) if member in self.guard.peers.links else None
        return match is not None and match >= self.committed - CAUGHT_UP

    def hand_over(self, to: str | None) -> bool:
        """Ask a voter that has everything to campaign now. False: none has; pause proposals and try again."""
        if self.batches.flying or self.journal.last > self.committed:
            return False
        answers: list[int] = []
        self._core.transferLeadership(
            None if to is None else codec.Peer(to), lambda _, reason: answers.append(reason)
        )
        return answers == [FAIL_REASON.SUCCESS]

    def status(self) -> Mapping[str, Any]:
        """For operators and metrics; the names are stable."""
        return {
            "leader": self.leader,
            "term": self.term,
            "applied": self.applied,
            "committed": self.committed,
            "first": self.journal.first,
            "last": self.journal.last,
            "snapshot": self.compaction.index,
            "voters": sorted(self.voters),
            "learners": sorted(self.guard.peers.learners),
            "match": dict(self.guard.leading.match),
            "links": sorted(self.guard.peers.links),
            "waiting": len(self.batches),
            "syncs": self.journal.syncs,
            "journal_bytes": self.journal.bytes_on_disk,
            "failed": self.failed,
        }


def _inspect(folder: Path, *, voters: Sequence[str], fresh: bool) -> Header | None:
    """Header of the snapshot, if there is one. All checks come before the library, which would swallow what
    is wrong and go on with an empty state."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / TAKE_OVER).exists():
        raise Damaged(f"{folder}: a take-over was begun and not finished")
    for name in LEFTOVERS:
        (folder / name).unlink(missing_ok=True)
    has_snapshot = (folder / "snapshot").exists()
    if not (folder / "journal").exists():
        if not fresh:
            raise Damaged(f"{folder}: the log is gone; it may have voted: remove this member and join again")
        if has_snapshot:
            raise Damaged(f"{folder}: a snapshot without a log")
        if not voters:
            raise Damaged(f"{folder}: a member needs to know the voters it joins")
    return snapshot.read(folder / "snapshot")[0] if has_snapshot else None


def _aligned(journal: Journal, header: Header | None) -> frozenset[str]:
    """Make the log fit the snapshot; returns the voters to begin with."""
    if header is None:
        if len(journal) and journal.first > 1:
            raise Damaged("the log was compacted, but its snapshot is gone")
        return journal.voters()
    if journal.align(header.last, header.voters):
        return journal.voters()
    return frozenset(header.voters)


def _replies(result: list[Reply] | None, reason: int) -> Sequence[Reply] | Reply:
    if reason == FAIL_REASON.SUCCESS and result is not None:
        return result
    return NOT_TAKEN if reason in SURELY_NOT else UNKNOWN


def _membership_reply(reason: int) -> Reply:
    if reason == FAIL_REASON.SUCCESS:
        return Reply(index=0)
    return NOT_TAKEN if reason in SURELY_NOT else UNKNOWN
