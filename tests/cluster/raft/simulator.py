"""Raft nodes on simulated time and network, with real journals; all follows from a seed and PYTHONHASHSEED.

A crash loses what was not synced. Messages of one direction stay in order, wait, and are lost with their
link. Snapshots and shorter logs are written when the simulator says so, not by threads.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from cluster.raft.background import Work
from cluster.raft.batches import NOT_TAKEN, Reply
from cluster.raft.journal import Identity
from cluster.raft.messages import Message, decode, encode
from cluster.raft.node import Applied, Hooks, Node
from cluster.state.machine import Machine, digest
from tests.cluster.raft.toy import Raise, entry, machine, values

STEP = 0.01  # simulated seconds
CLUSTER = "c1"


class Crash(BaseException):
    """Power cut at a failpoint."""


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        self.time += 1e-6  # or a loop that waits for time to pass would never end
        return self.time


class Wire:
    """One direction between two members."""

    def __init__(self) -> None:
        self.up = False
        self.cut = False
        self.queue: deque[tuple[float, Message]] = deque()
        self.late: list[tuple[float, Message]] = []  # of links that are gone, still on their way


class Member:
    """One life of a node."""

    def __init__(self, node: Node, machine: Machine, outbox: deque[tuple[str, Message]]) -> None:
        self.node = node
        self.machine = machine
        self.outbox = outbox
        self.works: list[Work] = []  # that threads would do
        self.applied: list[Applied] = []
        self.asleep = 0  # steps until the next pass

    def keep(self, work: Work) -> Callable[[], None]:
        self.works.append(work)
        return partial(self._end, work)

    def _end(self, work: Work) -> None:
        if work in self.works:
            self.works.remove(work)
            work()


class Simulator:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int = 0) -> None:
        self.random = random.Random(seed)
        random.seed(seed)  # election timeouts
        self.clock = Clock()
        monkeypatch.setattr("pysyncobj.syncobj.monotonicTime", self.clock)
        monkeypatch.setattr("os.fdatasync", lambda _: None)  # a crash here loses memory, not page cache
        monkeypatch.setattr("os.fsync", lambda _: None)
        monkeypatch.setattr("cluster.raft.background.REST", 0)
        monkeypatch.setattr("cluster.raft.frames.GROW_BY", 1 << 16)  # bytes; most journals here are small
        self.folder = folder
        self.members: dict[str, Member] = {}
        self.wires: defaultdict[tuple[str, str], Wire] = defaultdict(Wire)
        self.latency = (0.001, 0.005)
        self.disorder = 0.0  # chance: late messages of lost links, passes squeezed in
        self.leaders: dict[int, str] = {}
        self.fatal: dict[str, str] = {}
        self.learners: frozenset[str] = frozenset()
        self.sent: list[tuple[str, str, Message]] = []  # from, to
        self.max_entries = 20_000
        self.trailing = 1000
        self.timer = 1  # steps until a member makes a pass though it heard nothing; the Raft thread's are 10

    # Lives

    def start(
        self, name: str, voters: Iterable[str] = "abc", *, fresh: bool = True, cluster_id: str = CLUSTER
    ) -> Node:
        outbox: deque[tuple[str, Message]] = deque()
        toy = machine()
        applied: list[Applied] = []
        hooks = Hooks(
            send=lambda to, message: outbox.append((to, decode(encode(message)))),
            write_out=lambda: None,
            on_applied=applied.append,
            on_fatal=lambda reason: self.fatal.__setitem__(name, reason),
            now=self.clock,
        )
        node = Node(
            self.folder / name, Identity(cluster_id, name), toy, hooks, voters=list(voters), fresh=fresh
        )
        member = Member(node, toy, outbox)
        member.applied = applied
        node.compaction.spawn = member.keep
        node.compaction.max_entries = self.max_entries
        node.journal.spawn = member.keep
        node.journal.trailing = self.trailing
        self.members[name] = member
        return node

    def crash(self, name: str) -> None:
        member = self.members.pop(name)
        member.works.clear()
        member.node.journal._file.close()
        for (source, target), wire in self.wires.items():
            if name in (source, target):
                self._lose(source, wire, target)

    def __getitem__(self, name: str) -> Node:
        return self.members[name].node

    # Network

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        self.wires[source, target].cut = True
        if both:
            self.wires[target, source].cut = True

    def isolate(self, name: str) -> None:
        for other in self.members:
            if other != name:
                self.cut(name, other)

    def heal(self) -> None:
        for wire in self.wires.values():
            wire.cut = False

    def _lose(self, source: str, wire: Wire, target: str) -> None:
        for _, message in wire.queue:
            if self.random.random() < self.disorder:
                wire.late.append((self.clock.time + self.random.uniform(0, 1), message))
        wire.queue.clear()
        if wire.up:
            wire.up = False
            if source in self.members:
                self[source].guard.link_down(target)

    def _connect(self) -> None:
        for source in self.members:
            for target in self.members:
                if source == target:
                    continue
                wire = self.wires[source, target]
                if wire.cut:
                    self._lose(source, wire, target)
                elif not wire.up:
                    wire.up = True
                    self[source].guard.link_up(target)

    def _deliver(self) -> None:
        for (source, target), wire in list(self.wires.items()):
            while wire.queue and wire.queue[0][0] <= self.clock.time and target in self.members:
                _, message = wire.queue.popleft()
                self._arrive(source, target, message)
            arrived = [one for one in wire.late if one[0] <= self.clock.time]
            wire.late = [one for one in wire.late if one[0] > self.clock.time]
            for _, message in arrived:
                self._arrive(source, target, message)

    def _arrive(self, source: str, target: str, message: Message) -> None:
        if target in self.members:
            self.wake(target)
            self._guarded(target, partial(_receive, source, message))
        if target in self.members and self.random.random() < self.disorder:
            self._guarded(target, Node.step)
            self._send(target)

    def _send(self, name: str) -> None:
        member = self.members.get(name)
        while member is not None and member.outbox:
            target, message = member.outbox.popleft()
            wire = self.wires[name, target]
            self.sent.append((name, target, message))
            if wire.up:
                wire.queue.append((self.clock.time + self.random.uniform(*self.latency), message))

    # Time

    def tick(self) -> None:
        self.clock.time += STEP
        self._connect()
        self._deliver()
        for name, member in list(self.members.items()):
            if member.node.is_leader:
                member.node.guard.peers.set_learners(self.learners)
            if not self._idle(member):
                self._pass(name)
        for name, member in self.members.items():
            if member.node.is_leader:
                assert self.leaders.setdefault(member.node.term, name) == name, "two leaders in one term"

    def _idle(self, member: Member) -> bool:
        member.asleep -= 1
        if member.asleep > 0 and not member.outbox:
            return True
        member.asleep = self.timer
        return False

    def wake(self, name: str) -> None:
        """Let it make a pass in the next step."""
        self.members[name].asleep = 0

    def _pass(self, name: str) -> None:
        for _ in range(3):
            again = self._guarded(name, Node.step)
            self._send(name)
            if not again:
                break

    def _guarded(self, name: str, call: Callable[[Node], object]) -> object:
        try:
            return call(self[name])
        except Crash:
            self.crash(name)
            return False

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP)):
            self.tick()

    def until(self, check: Callable[[], object], within: float = 20.0) -> None:
        for _ in range(int(within / STEP)):
            if check():
                return
            self.tick()
        raise AssertionError(f"not within {within} simulated seconds")

    def write_files(self) -> None:
        """What threads do in earnest. It may crash."""
        for name, member in list(self.members.items()):
            works, member.works[:] = member.works.copy(), []
            for work in works:
                if name in self.members:
                    self._guarded(name, partial(_do, work))

    # Use

    def leader(self) -> str:
        """The one whose term is newest, once it is usable."""
        self.until(lambda: self._leader() is not None)
        found = self._leader()
        assert found is not None
        return found

    def leader_of(self, names: set[str]) -> str:
        """A usable leader among these."""
        self.until(lambda: self._leader() in names)  # None is in none
        found = self._leader()
        assert found is not None
        return found

    def _leader(self) -> str | None:
        leaders = [name for name, member in self.members.items() if member.node.is_leader]
        best = max(leaders, key=lambda name: self[name].term, default=None)
        if best is None:
            return None
        journal = self[best].journal
        return best if journal.term_at(self[best].committed) == self[best].term else None

    def propose(self, name: str, key: str, request_id: str = "", padding: str = "") -> list[Reply]:
        """Replies arrive in the list."""
        replies: list[Reply] = []
        self[name].propose(entry(Raise(key, padding), request_id or key), replies.append)
        return replies

    def write(self, name: str, *keys: str) -> None:
        """Propose and wait until all are acknowledged."""
        replies = [self.propose(name, key) for key in keys]
        self.until(lambda: all(replies))
        assert all(reply[0].index is not None for reply in replies), replies

    def promote(self, name: str) -> None:
        """Make a learner a voter, as often as it is too early."""
        replies: list[Reply] = []

        def try_again() -> bool:
            if not replies or replies[-1] == NOT_TAKEN:
                self[self.leader()].change("add", name, replies.append)
            return bool(replies) and replies[-1].index is not None

        self.until(try_again)

    def values(self, name: str) -> dict[str, int]:
        return values(self.members[name].machine.state)

    def converge(self) -> None:
        """Heal, and wait until all members hold the same state."""
        self.heal()
        self.leader()
        self.until(self._equal, 60)

    def _equal(self) -> bool:
        members = self.members.values()
        if len({member.node.applied for member in members}) > 1:
            return False
        return len({digest(member.machine.state) for member in members}) == 1


def _receive(source: str, message: Message, node: Node) -> None:
    node.receive(source, message)


def _do(work: Work, _: Node) -> None:
    work()
