"""Pre-vote: a member raises the term only if a majority would follow it, and none does while a leader lives.

The library campaigns on its own short timeout whenever it believes to be connected to anyone; so the guard
leaves it unconnected, and connects it when a pre-vote was won. This timer is the real election timer.
"""

import random
from collections.abc import Callable

from cluster.raft.messages import PreVote, PreVoted

QUIET = 1.0  # seconds without a leader before anyone may campaign: five missed heartbeats
PATIENCE = 2.0  # a member waits between QUIET and this, by chance, so that seldom two campaign at once


class PreVotes:
    """One member's view of who could lead. Times are `now()`'s seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._round = 0
        self._term = 0
        self._granted: set[str] = set()
        self._deadline = 0.0
        self.leader_seen = float("-inf")
        self.arm()

    def arm(self) -> None:
        """Wait a full election timeout from now."""
        self._deadline = self._now() + random.uniform(QUIET, PATIENCE)  # noqa: S311  # not a secret

    def hurry(self) -> None:
        """Campaign at the next opportunity."""
        self._deadline = self._now()

    def saw_leader(self) -> None:
        self.leader_seen = self._now()
        self.arm()

    @property
    def due(self) -> bool:
        return self._now() >= self._deadline

    @property
    def quiet(self) -> bool:
        """No leader was heard of for so long that a new one may be elected."""
        return self._now() - self.leader_seen >= QUIET

    def ask(self, term: int, last_index: int, last_term: int) -> PreVote:
        """Start a round in which `term` is this member's current one."""
        self.arm()
        self._round += 1
        self._term = term
        self._granted = set()
        return PreVote(term=term + 1, round=self._round, last_index=last_index, last_term=last_term)

    def count(self, voter: str, reply: PreVoted, term: int) -> frozenset[str]:
        """Who granted this round so far; nobody if the term has moved on."""
        if not reply.granted or reply.round != self._round or self._term != term:
            return frozenset()
        self._granted.add(voter)
        return frozenset(self._granted)
