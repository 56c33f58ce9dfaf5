"""Whom the library believes to be connected: its word for members it may send entries to and campaign among.

So it is the public lever: a follower connects nobody until its pre-vote is won, a leader connects whoever
has a link. Learners are attached as the library's read-only nodes: they get the log and are never counted.
"""

from collections.abc import Iterable

from pysyncobj.transport import Transport

from cluster.raft.codec import Peer
from cluster.raft.core import Core


class Connections:
    """Bookkeeping for one transport. Of the voters, always the *other* ones are meant."""

    def __init__(self, transport: Transport) -> None:
        self.links: set[str] = set()
        self.leading = False
        self._transport = transport
        self._core: Core
        self._joined: set[str] = set()
        self._wanted_learners: frozenset[str] = frozenset()
        self._attached: set[str] = set()
        # Promoted learners stay in the library's read-only set; taking them out while they vote breaks it.
        self._ghosts: set[str] = set()
        self._stalled: set[str] = set()

    def bind(self, core: Core) -> None:
        self._core = core

    def voters(self) -> frozenset[str]:
        return frozenset(node.id for node in self._core.otherNodes)

    def linked_voters(self) -> frozenset[str]:
        return self.voters() & self.links

    def quorum(self, members: Iterable[str]) -> bool:
        """Are these, together with this member, a majority? Who is no voter does not count."""
        voters = self.voters()
        return len(voters.intersection(members)) + 1 > (len(voters) + 1) / 2

    @property
    def learners(self) -> frozenset[str]:
        return frozenset(self._attached)

    def learns(self, member: str) -> bool:
        return member in self._attached

    def gets_log(self, member: str) -> bool:
        return member in self._attached or member in self.voters()

    # Links

    def link_up(self, member: str) -> None:
        self.links.add(member)
        if self.leading:
            self.join_voters()
            self.attach_learners()

    def link_down(self, member: str) -> None:
        self.links.discard(member)
        if member in self._joined:
            self._joined.discard(member)
            self._transport._onNodeDisconnected(Peer(member))
        if member in self._attached:
            self._detach(member)

    # Roles

    def lead(self) -> None:
        self.leading = True
        self.join_voters()
        self.attach_learners()

    def step_down(self) -> None:
        self.leading = False
        for member in self._attached | self._ghosts:
            self._detach(member)
        self.leave_voters()

    # Voters

    def join_voters(self) -> None:
        for member in self.linked_voters() - self._joined:
            self._joined.add(member)
            self._transport._onNodeConnected(Peer(member))

    def leave_voters(self) -> None:
        for member in self._joined:
            self._transport._onNodeDisconnected(Peer(member))
        self._joined.clear()

    def added(self, member: str) -> None:
        """The library counts it as a voter from now on."""
        if member in self._attached:
            self._attached.discard(member)
            self._ghosts.add(member)
        if self.leading:
            self.join_voters()

    def dropped(self, member: str) -> None:
        """It is no voter any more."""
        self._transport._onNodeDisconnected(Peer(member))
        self._joined.discard(member)
        self._detach(member)

    # Learners

    def set_learners(self, members: frozenset[str]) -> None:
        for member in self._attached - members:
            self._detach(member)
        self._wanted_learners = members
        self.attach_learners()

    def attach_learners(self) -> None:
        if not self.leading:
            return
        for member in (self._wanted_learners & self.links) - self.voters() - self._attached - self._ghosts:
            self._attached.add(member)
            self._transport._onReadonlyNodeConnected(Peer(member))

    def _detach(self, member: str) -> None:
        if member in self._attached or member in self._ghosts:
            self._attached.discard(member)
            self._ghosts.discard(member)
            self._transport._onReadonlyNodeDisconnected(Peer(member))

    # A snapshot that is still being made

    def stall(self, member: str) -> None:
        """Take it out of the library's loops until the next pass."""
        self._transport._onNodeDisconnected(Peer(member))
        self._stalled.add(member)

    def retry_stalled(self) -> None:
        for member in self._stalled:
            if self.leading and member in self.links & (self._joined | self._attached):
                self._transport._onNodeConnected(Peer(member))
        self._stalled.clear()
