"""A pipe's end or a pty's master as something to await: never blocks the loop, never reads ahead."""

import asyncio
import errno
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lxdpy.rest import crowd

Ready = asyncio.Future[None]

MOST_LEFT = 1 << 20  # bytes that a pipe or a terminal holds at most; what comes after them is of others
IN_A_ROW = 8  # reads; who always has something to read must not keep the loop from all others


class Descriptor:
    """Owns `fd` and makes it non-blocking. At most one reader and one writer at a time."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        crowd.join(fd)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiting: set[Ready] = set()
        self._finished = False
        self._left = MOST_LEFT  # once finished
        self._in_a_row = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """-1 once closed."""
        return self._fd

    async def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end, and none when it was closed."""
        self._in_a_row += 1
        if self._in_a_row > IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)
        while self._fd >= 0 and self._left > 0:
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                if self._finished:
                    return b""
                self._in_a_row = 0
                await self._until(self._loop.add_reader, self._loop.remove_reader)
            except OSError as failure:
                if failure.errno == errno.EIO:  # a pty whose other side has been closed
                    return b""
                raise
            else:
                self._left -= len(data) if self._finished else 0
                return data
        return b""

    async def write(self, data: bytes) -> None:
        """All of it. Raises OSError when nobody reads any more."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError(errno.EPIPE, "closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)

    def finish(self) -> None:
        """The program has ended: reads end when nothing is there, though a child of it may hold the fd
        open, and with what it may have written, though a child of it may go on and on.
        """
        self._finished = True
        self._wake()

    def close(self) -> None:
        """Wakes who reads or writes. May be repeated."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        crowd.leave(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._wake()

    def _wake(self) -> None:
        for ready in self._waiting:
            _settle(ready)

    async def _until(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        """Until the loop finds the fd ready, or `_wake`."""
        ready: Ready = self._loop.create_future()
        self._waiting.add(ready)
        add(self._fd, _settle, ready)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            if self._fd >= 0:
                remove(self._fd)


def _settle(ready: Ready) -> None:
    if not ready.done():
        ready.set_result(None)
