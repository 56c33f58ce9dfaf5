"""Guard: the library's transport, and the repair of its protocol at message level.

It hands messages to its parts: `leading` and `following` (the log), `elections`, `reads`. Acknowledgements
and votes leave after the disk has what they promise (desk.py); learners get the log without a vote
(connections.py). It knows no loop and no socket: give it a wire, feed it `receive`, all from one thread.
"""

from collections.abc import Callable
from typing import Any

from pysyncobj.transport import Transport

from cluster.raft import dialect
from cluster.raft.codec import Peer
from cluster.raft.connections import Connections
from cluster.raft.core import CANDIDATE, LEADER, Core
from cluster.raft.desk import Desk, Wire
from cluster.raft.elections import Elections
from cluster.raft.following import Following
from cluster.raft.journal import Journal
from cluster.raft.leading import Leading
from cluster.raft.messages import (
    Append,
    Appended,
    Install,
    Message,
    Ping,
    Pong,
    PreVote,
    PreVoted,
    RequestVote,
    TermHint,
    TimeoutNow,
    Vote,
)
from cluster.raft.prevotes import PreVotes
from cluster.raft.reads import Reads


class Guard(Transport):  # type: ignore[misc]  # the library has no types
    def __init__(
        self, journal: Journal, wire: Wire, *, now: Callable[[], float], on_fatal: Callable[[str], None]
    ) -> None:
        super().__init__(None, None, None)
        self.peers = Connections(self)
        self.desk = desk = Desk(
            journal, self.peers, wire, now=now, deliver=self._deliver, on_fatal=on_fatal
        )  # fmt: skip
        self.prevotes = PreVotes(now)
        self.leading = Leading(desk)
        self.following = Following(desk, self.prevotes)
        self.elections = Elections(desk, self.leading, self.prevotes)
        self.reads = Reads(desk)
        self._handlers: dict[type[Message], Callable[[Peer, Any], None]] = {
            Append: self.following.on_append,
            Install: self.following.on_install,
            Appended: self.leading.on_appended,
            RequestVote: self.elections.on_request_vote,
            Vote: self.elections.on_vote,
            TimeoutNow: self.elections.on_timeout_now,
            PreVote: self.elections.on_prevote,
            PreVoted: self.elections.on_prevoted,
            TermHint: self.elections.on_term_hint,
            Ping: self.reads.on_ping,
            Pong: self.reads.on_pong,
        }

    def bind(self, core: Core) -> None:
        self.desk.bind(core)
        self.peers.bind(core)
        if not self.peers.voters():
            self.prevotes.hurry()  # alone: there is nobody to wait for

    # What is known

    @property
    def failed(self) -> str | None:
        return self.desk.failed

    @property
    def alone(self) -> bool:
        """This leader is its own majority: no message will wake it up to commit."""
        return self.desk.leads and not self.peers.voters()

    @property
    def leader(self) -> str | None:
        """The leader as far as known here; None once it was silent for a while."""
        if self.desk.leads:
            return self.desk.me
        found = self.desk.leader
        return None if found is None or self.prevotes.quiet else str(found.id)

    # Library side

    def addNode(self, node: Peer) -> None:
        self.peers.added(node.id)

    def dropNode(self, node: Peer) -> None:
        self.peers.dropped(node.id)
        self.leading.dropped(node.id)

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        if self.failed or node.id not in self.peers.links:
            return False
        match message["type"]:
            case "append_entries":
                return self.leading.send(node.id, message)
            case "next_node_idx":
                self.following.acknowledge(node.id, message)
                return True
        other = dialect.other_of(message)
        if isinstance(other, Vote):
            self.elections.vote(node.id, other)
        elif other is not None:
            self.desk.promise(node.id, other)
        return other is not None

    def on_state(self, old: int, new: int) -> None:
        """The library changed its role; it is in the middle of something, so nothing is done to it here
        that it does not expect of a transport."""
        if new == LEADER:
            self.leading.begin()
            self.peers.lead()
            return
        self.peers.step_down()
        if old == LEADER:
            self.reads.give_up()
        if new == CANDIDATE:
            self.elections.stood()

    def _deliver(self, peer: Peer | None, message: dict[str, Any]) -> None:
        self._onMessageReceived(peer, message)

    # Network side

    def link_up(self, member: str) -> None:
        self.leading.link_changed(member)
        self.peers.link_up(member)

    def link_down(self, member: str) -> None:
        self.leading.link_changed(member)
        self.peers.link_down(member)

    def receive(self, member: str, message: Message) -> None:
        """A message from `member`. What is impossible in it is ignored; a library error is the caller's."""
        handler = self._handlers.get(type(message))
        if handler is not None and not self.failed:
            handler(Peer(member), message)

    def before_pass(self) -> None:
        """Timers, and all that may have become possible, before each pass of the library."""
        if self.failed:
            return
        self.reads.before_pass()
        self.peers.retry_stalled()
        self.peers.attach_learners()
        self.elections.before_pass()
