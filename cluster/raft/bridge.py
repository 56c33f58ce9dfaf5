"""Calls from one thread to another thread's loop: in order, one wake-up for any number of them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """Calls for the thread that runs `loop`. `post` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Never blocks, never raises: what is posted to a closed loop is dropped."""
        self._calls.append((call, args))
        if not self._awake:
            self._awake = True
            self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # First the flag, then the calls: who posts in between sees it down and wakes the loop once more.
        self._awake = False
        try:
            while self._calls:
                call, args = self._calls.popleft()
                call(*args)
        finally:
            if self._calls and not self._awake:  # a call raised: the loop logs it, the others go on
                self._awake = True
                self._loop.call_soon(self._drain)


def resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    """On the future's own loop; nothing if its waiter has given up."""
    if not future.done():
        future.set_result(value)
