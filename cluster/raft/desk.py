"""Desk: what the parts of the guard share. The log, the library, and the ways to speak.

What is said leaves with the next flush; what is promised, only once the disk has it; what is delivered, the
library hears at once.
"""

import logging
from collections.abc import Callable
from typing import Any

from cluster.raft import dialect
from cluster.raft.codec import Peer
from cluster.raft.connections import Connections
from cluster.raft.core import Core
from cluster.raft.journal import Journal
from cluster.raft.messages import Message

log = logging.getLogger(__name__)

Send = Callable[[str, Message], None]


class Wire:
    """How messages get on their way: `send` may only collect them."""

    def __init__(self, send: Send, write_out: Callable[[], None]) -> None:
        self._send = send
        self._write_out = write_out

    def push(self, messages: list[tuple[str, Message]]) -> None:
        if messages:
            for member, message in messages:
                self._send(member, message)
            messages.clear()
            self._write_out()


class Desk:
    def __init__(
        self,
        journal: Journal,
        peers: Connections,
        wire: Wire,
        *,
        now: Callable[[], float],
        deliver: Callable[[Peer | None, dict[str, Any]], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        self.journal = journal
        self.me = journal.identity.member_id
        self.peers = peers
        self.now = now
        self.deliver = deliver
        self.failed: str | None = None
        self._core: Core
        self._wire = wire
        self._on_fatal = on_fatal
        self._said: list[tuple[str, Message]] = []
        self._promised: list[tuple[str, Message]] = []

    def bind(self, core: Core) -> None:
        self._core = core

    # What is known

    @property
    def term(self) -> int:
        return int(self._core.raftCurrentTerm)

    @property
    def committed(self) -> int:
        return int(max(self._core.raftCommitIndex, self._core.raftLastApplied))

    @property
    def leads(self) -> bool:
        return self.peers.leading

    @property
    def leader(self) -> Peer | None:
        """Whom the library follows, however long it has been silent."""
        found: Peer | None = self._core._getLeader()
        return found

    @property
    def votes(self) -> bool:
        """This member is a voter, by its own log."""
        return self.me in self.journal.voters()

    # Speaking

    def say(self, member: str, message: Message) -> None:
        self._said.append((member, message))

    def promise(self, member: str, message: Message) -> None:
        self._promised.append((member, message))

    def follow(self, peer: Peer, term: int) -> bool:
        """Become a follower in a newer term; says whether it was newer."""
        if term <= self.term:
            return False
        self.deliver(peer, dialect.newer_term(term))
        return True

    def flush(self) -> None:
        """What is said first, so that followers write while we do; then the disk; then what promises it."""
        if self.failed:
            return
        self._wire.push(self._said)
        if self.sync():
            self._wire.push(self._promised)

    def sync(self) -> bool:
        """Whether all that was added to the log is on disk; if not, this member does not go on."""
        try:
            self.journal.sync()
        except OSError as error:
            self.fatal(f"journal: {error!r}")
            return False
        return True

    def fatal(self, reason: str) -> None:
        """Stop taking part, for good: nothing is sent any more. The first reason counts."""
        if self.failed is None:
            self.failed = reason
            self._said.clear()
            self._promised.clear()
            log.critical("raft stops: %s", reason)
            self._on_fatal(reason)
