"""Asking until there is an answer: what may be tried again, and what is known when time is up."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from cluster.errors import Unavailable, Uncertain
from cluster.raft.batches import OnReply, Reply
from cluster.raft.thread import RaftThread, View

RETRY_EVERY = 0.1  # seconds, or at once when the leader changes
ATTEMPT = 3.0  # seconds until an answer is taken for lost and asked for again: twice an election
CUT_OFF = 3.0  # seconds with too few links for a leader; links and an election take less to come back
SHORTEST = 0.1  # seconds an attempt is given: a shorter one ends unanswered, and makes the outcome unknown

Ask = Callable[[RaftThread, OnReply], None]


class Session(Protocol):
    view: View
    closed: bool

    async def attempt(self, ask: Ask, timeout: float) -> Reply: ...
    async def pause(self, seconds: float) -> None: ...


class Deadline:
    """`timeout` seconds from now, by the clock of the running loop."""

    def __init__(self, timeout: float) -> None:
        self._time = now() + timeout

    @property
    def left(self) -> float:
        return max(0.0, self._time - now())

    @property
    def allows_another(self) -> bool:
        return self.left >= RETRY_EVERY + SHORTEST


class Lasting:
    """For how long something has been true, whenever somebody looked."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds(self, true: bool) -> float:
        if not true:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now()
        return now() - self._since


def now() -> float:
    return asyncio.get_running_loop().time()


async def answered(session: Session, ask: Ask, deadline: Deadline) -> Reply:
    """The first reply with an index. Raises Unavailable if surely nothing was done, else Uncertain.

    Whatever is asked must be safe to ask twice: reads are, proposals by their request id. Who is cut off is
    told so before time is up, if surely nothing was done.
    """
    uncertain, cut_off = False, Lasting()
    while not (uncertain and session.closed):
        reply = await session.attempt(ask, min(ATTEMPT, deadline.left))
        if reply.index is not None:
            return reply
        uncertain = uncertain or reply.taken
        if session.closed or not deadline.allows_another:
            break
        if cut_off.seconds(session.view.cut_off) >= CUT_OFF and not uncertain:
            break
        await session.pause(RETRY_EVERY)
    if uncertain:
        raise Uncertain("No answer from the cluster's leader; the change may still be made")
    if session.view.cut_off:
        raise Unavailable("This member is cut off from the cluster: it reaches no majority of the voters")
    leaderless = session.view.leader is None
    raise Unavailable("The cluster has no leader" if leaderless else "The leader did not answer")
