"""Store: what the rest of the program sees of Raft. All methods on the asyncio loop that awaited `start`.

State changes only through `propose`, on any member; every member's `state` follows the log. `read_index`
gives a state that has all that was acknowledged before the call; `state` may be some milliseconds old.
"""

import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.errors import Conflict, Error, Invalid, Unavailable, Uncertain, from_info
from cluster.ids import new_request_id
from cluster.raft import voting
from cluster.raft.asking import Deadline, answered
from cluster.raft.batches import MAX_ENTRY, Reply
from cluster.raft.carrier import PeerContexts
from cluster.raft.journal import Identity
from cluster.raft.link import frame
from cluster.raft.listeners import Unsubscribe
from cluster.raft.messages import Cast
from cluster.raft.node import Applied
from cluster.raft.session import NOT_RUNNING, Audience, Session
from cluster.raft.thread import RaftThread, Setup, View
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine
from cluster.state.txn import State

__all__ = ["Applied", "Identity", "PeerContexts", "Store"]

MAX_CAST = 256 << 10  # bytes; more would keep the log waiting
HAND_OVER = 2.0  # seconds a stopping leader tries to find a successor
NOTHING_YET = View()


class Store:
    """One member of one cluster. After `stop`, `renew` makes it another member of another cluster: who holds
    the store, watches or listens need not know.
    """

    def __init__(  # noqa: PLR0913  # what a member is made of
        self,
        folder: Path,
        identity: Identity,
        machine: Machine,
        *,
        addresses: Callable[[], Mapping[str, str]],
        voters: Sequence[str],
        contexts: PeerContexts,
        fresh: bool,
        on_fatal: Callable[[str], object] = lambda _: None,
        on_dismissed: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`addresses` (member id → "host:port", this member's own or not) and `contexts` are called on the
        Raft thread. `voters` count only in an empty folder: a founder gives itself, a joiner those of the
        cluster. Without `fresh`, a folder without a log is an error: this member may have voted. After
        `on_fatal` this member takes part in nothing any more, and its process should end. `on_dismissed`
        hears, with each dial, of a member that says this one was removed from the cluster.
        """
        self.member_id = identity.member_id
        self.cluster_id = identity.cluster_id
        self._machine = machine
        self._setup = Setup(folder, identity, machine, addresses, voters, contexts, fresh)
        self._audience = Audience(on_fatal, on_dismissed)
        self._session: Session | None = None

    # Life

    def renew(self, identity: Identity, machine: Machine, *, voters: Sequence[str]) -> None:
        """Forget the cluster of before (the caller has removed its folder) for another; then `start` again.

        `voters` as in the constructor. Watchers are not told that the old rows are gone: compare states.
        """
        if self._session is not None and not self._session.over:
            raise Conflict("The store has to be stopped first")
        before = self._setup
        self.member_id = identity.member_id
        self.cluster_id = identity.cluster_id
        self._machine = machine
        self._setup = Setup(before.folder, identity, machine, before.addresses, voters, before.contexts, True)
        self._session = None

    async def start(self) -> None:
        """Returns when the state on disk is loaded; a group of one member has its leader then.

        Raises Damaged, OSError: then nothing runs.
        """
        self._session = Session(self._setup, self._audience)
        await self._session.start()

    async def stop(self) -> None:
        """Hand leadership over if somebody can take it, then close. Stopping again does nothing."""
        if self._raft is not None and self._session is not None:
            await self.hand_over()
            await self._session.stop()

    async def hand_over(self) -> None:
        """Let another voter lead, if this member does and one can. It may come back when that one fails."""
        if self.is_leader and self.links & self.voters:
            with suppress(Error):
                await self.transfer(timeout=HAND_OVER)

    @property
    def _raft(self) -> RaftThread | None:
        return None if self._session is None else self._session.raft

    def _live(self) -> Session:
        if self._session is None:
            raise Unavailable(NOT_RUNNING)
        self._session.running()
        return self._session

    # What is known

    @property
    def _view(self) -> View:
        return NOTHING_YET if self._session is None else self._session.view

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def leader(self) -> str | None:
        """Member id; None while there is none as far as known here."""
        return self._view.leader

    @property
    def is_leader(self) -> bool:
        return self._view.is_leader

    @property
    def term(self) -> int:
        return self._view.term

    @property
    def voters(self) -> frozenset[str]:
        return self._view.voters

    @property
    def learners(self) -> frozenset[str]:
        """At the leader: who gets the log without a vote, and has a link."""
        return self._view.learners

    @property
    def links(self) -> frozenset[str]:
        """Members this one can send to."""
        return self._view.links

    def status(self) -> Mapping[str, Any]:
        """For operators and metrics."""
        return {} if self._raft is None else self._raft.node.status()

    def watch(self, callback: Callable[[Applied], object]) -> Unsubscribe:
        """Hear of all that changes after `start`, in the order of the log."""
        return self._audience.applied.add(callback)

    def on_cast(self, callback: Callable[[str, dict[str, Any]], object]) -> Unsubscribe:
        """Hear gossip: member id, message."""
        return self._audience.casts.add(callback)

    def on_link(self, callback: Callable[[str, bool], object]) -> Unsubscribe:
        """Hear when a link to a member comes up or goes down."""
        return self._audience.links.add(callback)

    def on_leader(self, callback: Callable[[str | None], object]) -> Unsubscribe:
        return self._audience.leaders.add(callback)

    # Writes and reads

    async def propose(self, command: Command, *, request_id: str = "", timeout: float = 10.0) -> State:
        """Change the state; returns one, on this member, in which it is done.

        Applied at most once, however often it is tried. Raises the command's own refusal; Unavailable if it
        surely was not applied; Uncertain if that is unknown: then only a retry under the same request id is
        safe. Raises Invalid for a command that is too large, Unavailable for one not all members know yet.
        """
        self._machine.admit(command)
        entry = entry_of(
            command,
            request_id=request_id or new_request_id(),
            proposer=self.member_id,
            proposed_at=time.time(),
        )
        if len(entry) > MAX_ENTRY:
            raise Invalid(f"The change has {len(entry)} bytes, at most {MAX_ENTRY} fit into the log")
        deadline = Deadline(timeout)
        reply = await answered(
            self._live(), lambda raft, answer: raft.forwarder.propose(entry, answer), deadline
        )
        try:
            state = await self._reach(reply, deadline)
        except Unavailable:
            if reply.error is None:
                raise Uncertain("The change was made, but this member has not seen it yet") from None
            state = self.state
        if reply.error is not None:
            raise from_info(reply.error)
        return state

    async def read_index(self, timeout: float = 5.0) -> State:
        """A state that has everything that was acknowledged, anywhere, before this call. Or Unavailable."""
        deadline = Deadline(timeout)
        try:
            reply = await answered(self._live(), lambda raft, answer: raft.forwarder.read(answer), deadline)
            return await self._reach(reply, deadline)
        except Uncertain as lost:
            raise Unavailable("No leader answered in time") from lost

    async def wait_index(self, index: int, timeout: float = 5.0) -> State:
        """The state once the entry at `index` is applied here. Raises Unavailable."""
        if self._session is None or index > self._session.indices.applied:
            self._live()
        assert self._session is not None
        await self._session.indices.wait(index, timeout)
        return self.state

    async def _reach(self, reply: Reply, deadline: Deadline) -> State:
        assert reply.index is not None
        return await self.wait_index(reply.index, deadline.left)

    # Membership, at the leader

    async def add_voter(self, member: str, timeout: float = 10.0) -> None:
        """Let a learner vote, once it has the log. Idempotent. Raises Unavailable, Uncertain."""
        await voting.change(self._live(), "add", member, timeout)

    async def remove_voter(self, member: str, timeout: float = 10.0) -> None:
        """Idempotent. Raises Unavailable, Uncertain; Conflict for the leader itself: `transfer` first."""
        if member == self.member_id and member in self.voters:
            raise Conflict("The leader cannot take its own vote away")
        await voting.change(self._live(), "rem", member, timeout)

    def set_learners(self, members: Collection[str]) -> None:
        """Who gets the log without a vote, now and whenever this member leads. Voters may be among them."""
        raft = self._live().running()
        raft.post(raft.node.guard.peers.set_learners, frozenset(members))

    async def transfer(self, to: str | None = None, timeout: float = 5.0) -> None:
        """Hand leadership to a voter, or to whoever has most of the log. Raises Unavailable."""
        if to != self.member_id and self.is_leader:
            await voting.transfer(self._live(), to, timeout)

    # Links

    def adopt(self, connection: socket.socket) -> None:
        """Take over an accepted connection that offered `raft/1`; nothing was read from it."""
        if self._raft is None:
            connection.close()
        else:
            self._raft.post_quietly(self._raft.adopt, connection)

    def addresses_changed(self) -> None:
        raft = self._live().running()
        raft.post_quietly(raft.carrier.addresses_changed)

    def drop(self, member: str) -> None:
        """Close all links with a member that was removed."""
        raft = self._live().running()
        raft.post_quietly(raft.carrier.drop, member)

    def cast(self, message: dict[str, Any], to: str | None = None) -> None:
        """Gossip to all members with a link, or to one: best effort, dropped where a link is slow.

        Raises Invalid beyond `MAX_CAST`, TypeError for what msgpack cannot hold.
        """
        data = frame(Cast(body=message))
        if len(data) > MAX_CAST:
            raise Invalid(f"A message of {len(data)} bytes is no gossip")
        if self._raft is not None:
            self._raft.post_quietly(self._raft.carrier.gossip, data, to)
