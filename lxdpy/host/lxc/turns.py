"""Taking turns at what is work for the host's processors, without waiting for who is stuck."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most `most` at one time; one that takes longer than `patience` seconds is not counted any more."""

    def __init__(self, most: int, patience: float) -> None:
        self._places = asyncio.Semaphore(most)
        self._patience = patience

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Those who wait go in the order in which they came."""
        await self._places.acquire()
        timer = asyncio.get_running_loop().call_later(self._patience, self._places.release)
        try:
            yield
        finally:
            if not timer.cancelled() and timer.when() > asyncio.get_running_loop().time():
                timer.cancel()
                self._places.release()
