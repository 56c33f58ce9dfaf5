"""Session: one life of the Raft thread, seen from the API loop. A store that is renewed begins another."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from cluster.errors import Unavailable
from cluster.raft.batches import UNKNOWN, OnReply, Reply
from cluster.raft.bridge import Mailbox, resolve
from cluster.raft.listeners import Listeners
from cluster.raft.node import Applied
from cluster.raft.thread import RaftThread, Setup, View
from cluster.raft.waiters import IndexWaiters

log = logging.getLogger(__name__)

NOT_RUNNING = "This member is starting or stopping"


class Audience:
    """Who is told what happens; it outlives sessions."""

    def __init__(self, failed: Callable[[str], object], dismissed: Callable[[str], object]) -> None:
        self.failed = failed
        self.dismissed = dismissed
        self.applied: Listeners[[Applied]] = Listeners()
        self.casts: Listeners[[str, dict[str, Any]]] = Listeners()
        self.links: Listeners[[str, bool]] = Listeners()
        self.leaders: Listeners[[str | None]] = Listeners()

    def tell(self, before: View, view: View) -> None:
        for member in view.links - before.links:
            self.links.tell(member, True)
        for member in before.links - view.links:
            self.links.tell(member, False)
        if view.leader != before.leader:
            self.leaders.tell(view.leader)


class Session:
    """Made and used on one loop. What the thread says arrives through a mailbox, in order."""

    def __init__(self, setup: Setup, audience: Audience) -> None:
        loop = asyncio.get_running_loop()
        self.view = View()
        self.indices = IndexWaiters()
        self.closed = False
        self._audience = audience
        self._thread = RaftThread(setup, Mailbox(loop), self)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._done: asyncio.Future[None] = loop.create_future()
        self._leader_news = asyncio.Event()
        self._waiting: set[asyncio.Future[Reply]] = set()

    async def start(self) -> None:
        """Returns when the state on disk is loaded. Raises Damaged, OSError: then nothing runs."""
        self._thread.start()
        await self._ready

    async def stop(self) -> None:
        self.closed = True
        self._thread.post_quietly(self._thread.stop)
        await self._done

    @property
    def over(self) -> bool:
        return self._done.done()

    @property
    def raft(self) -> RaftThread | None:
        """The thread, while it takes calls."""
        return self._thread if self._ready.done() and not self.closed else None

    @property
    def waiting(self) -> int:
        """Who awaits a reply."""
        return len(self._waiting)

    def running(self) -> RaftThread:
        """Raises Unavailable."""
        if self.raft is None:
            raise Unavailable(NOT_RUNNING)
        return self.raft

    async def attempt(self, ask: Callable[[RaftThread, OnReply], None], timeout: float) -> Reply:
        """Ask once, on the Raft thread. Without an answer in time it is UNKNOWN what became of it."""
        raft = self.running()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        raft.post(ask, raft, partial(raft.answer, future))
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return UNKNOWN
        finally:
            self._waiting.discard(future)

    async def pause(self, seconds: float) -> None:
        """Until the leader changes, and no longer than that."""
        self._leader_news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leader_news.wait()

    # Called by the thread, through the mailbox

    def started(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def ended(self, error: BaseException | None) -> None:
        self.closed = True
        self._thread.join()
        for future in self._waiting:
            resolve(future, UNKNOWN)
        self.indices.give_up()
        self._done.set_result(None)
        if not self._ready.done():
            self._ready.set_exception(error or Unavailable("Raft ended before it began"))
        elif error is not None:
            log.critical("the raft thread died", exc_info=error)
            self._audience.failed(repr(error))

    def published(self, index: int, applied: list[Applied], view: View) -> None:
        before, self.view = self.view, view
        try:
            for change in applied:
                self._audience.applied.tell(change)
        finally:
            self.indices.reached(index)
            if view.leader != before.leader:
                log.info("leader in term %s: %s", view.term, view.leader or "none known")
                self._leader_news.set()
            self._audience.tell(before, view)

    def heard(self, member: str, body: dict[str, Any]) -> None:
        self._audience.casts.tell(member, body)

    def failed(self, reason: str) -> None:
        self._audience.failed(reason)

    def dismissed(self, by: str) -> None:
        self._audience.dismissed(by)
