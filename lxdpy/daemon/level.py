"""Level-triggered work: "make it so" for a key, again whenever the key may have changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from cluster.errors import Error

log = logging.getLogger(__name__)

RETRY_AFTER = 5.0  # seconds until a failed key is tried again by itself


class Level:
    """Runs one function for keys that were poked: never twice at once for a key, again if poked meanwhile.

    The function must be idempotent. When it fails, that is logged and the key is tried again: after a while,
    or at once when it is poked.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        work: Callable[[str], Awaitable[None]],
        name: str,
        retry_after: float = RETRY_AFTER,
    ) -> None:
        self._tasks = tasks
        self._work = work
        self._name = name
        self._retry_after = retry_after
        self._running: dict[str, asyncio.Task[None]] = {}
        self._poked: dict[str, asyncio.Event] = {}  # of those that run
        self._failing: dict[str, asyncio.Event] = {}  # of those that run: between a failed try and the next

    def poke(self, key: str) -> None:
        if key in self._running:
            self._poked[key].set()
            self._failing[key].clear()
            return
        self._poked[key], self._failing[key] = asyncio.Event(), asyncio.Event()
        # In a context of its own: whoever poked did not ask for this.
        self._running[key] = self._tasks.create_task(
            self._run(key), name=f"{self._name} {key}", context=Context()
        )

    async def settled(self, key: str) -> None:
        """Until nothing is left to do for the key, or the last try has failed."""
        while key in self._running and not self._failing[key].is_set():
            failed = asyncio.create_task(self._failing[key].wait())
            try:
                await asyncio.wait([self._running[key], failed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                failed.cancel()

    async def _run(self, key: str) -> None:
        poked, failing, said = self._poked[key], self._failing[key], ""
        try:
            while True:
                poked.clear()
                failing.clear()
                if why := await self._failed(key, said):
                    said = why
                    failing.set()
                    await self._pause(poked)
                elif not poked.is_set():
                    return
        finally:
            del self._running[key], self._poked[key], self._failing[key]

    async def _failed(self, key: str, said: str) -> str:
        """Why, "" if it succeeded. What was `said` the last time is not logged again."""
        try:
            await self._work(key)
        except Error as failure:
            if failure.message != said:
                log.warning("%s %s: %s", self._name, key, failure.message)
            return failure.message or failure.kind
        except Exception as bug:
            log.exception("%s %s", self._name, key)
            return repr(bug)
        return ""

    async def _pause(self, poked: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._retry_after):
                await poked.wait()
        except TimeoutError:
            return
