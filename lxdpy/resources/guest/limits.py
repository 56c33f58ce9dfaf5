"""How much one guest may have of us."""

import asyncio
import time

CONNECTIONS = 32  # of its root, at once; the next wait in the kernel
STRANGERS = 4  # connections of others inside, at once; they are only told to go away
STRANGER_FOR = 5.0  # seconds, then theirs are cut
REQUESTS = 50.0  # a second, in the long run; an answer takes some 0.2 ms
BURST = 100  # requests that may come at once
REPORTS = 0.2  # changes of its state a second, as each is an entry of the log
REPORTS_AT_ONCE = 5
LISTENERS = 8  # to events, at once
WAITING = 200  # events that wait for a listener that does not take them, then it is cut off
STALLED_AFTER = 10.0  # seconds in which a listener takes nothing
AFTER_FAILURE = 1.0  # seconds until it is tried again to accept somebody
LINE = 4096  # bytes of a request's first line, and of each header
BODY = 4096  # bytes


class Pace:
    """So many at once, then so many a second; who comes too early waits."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = time.monotonic()

    def wait(self) -> float:
        """Take one; seconds until it may be used."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._left / self._rate)

    async def take(self) -> None:
        if seconds := self.wait():
            await asyncio.sleep(seconds)
