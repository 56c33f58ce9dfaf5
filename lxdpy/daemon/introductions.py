"""Members tell each other who votes, as soon as there is a link, and when another one leads.

A member that was away may not know the one that leads now: it would refuse it as a stranger, and so never get
the log that tells of it. Whom it knows tells it. What is told is a part of the state at an index, and counts
for a member that has not come so far. What is told at one index adds up, as votes move without a new one.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from cluster.membership.certificates import pem_of
from cluster.membership.identity import Peer, Voters
from cluster.membership.model import MEMBERS
from cluster.raft.store import Store

CAST = "voters"


class Introductions:
    """Made before the log opens, as there may be links at once."""

    def __init__(self, store: Store) -> None:
        self.newest = Voters()  # that were told here
        self.heard: Callable[[], object] = lambda: None  # called when there are newer ones
        self._store = store
        store.on_cast(self._hear)
        store.on_link(self._linked)
        store.on_leader(lambda leader: self.tell() if leader else None)

    def forget(self) -> None:
        """This member is another one, of another cluster."""
        self.newest = Voters()

    def tell(self, member: str | None = None) -> None:
        """One member, or all that there is a link to."""
        state = self._store.state
        rows = [row for row in map(state.rows(MEMBERS).get, self._store.voters) if row is not None]
        voters = Voters(state.index, {row.id: Peer(row.address, pem_of(row)) for row in rows})
        self._store.cast({"type": CAST, "voters": msgspec.to_builtins(voters)}, member)

    def _linked(self, member: str, up: bool) -> None:
        if up:
            self.tell(member)

    def _hear(self, member: str, message: dict[str, Any]) -> None:
        if message.get("type") != CAST:
            return
        told = msgspec.convert(message["voters"], Voters)
        if told.index < self.newest.index or told.index <= self._store.state.index:
            return
        if told.index == self.newest.index:
            told = Voters(told.index, self.newest.peers | told.peers)
        if told != self.newest:
            self.newest = told
            self.heard()
