"""Consoles that somebody looks at. LXC gives each to one client, so who looks at the same one shares it: all
see what it shows, and what any of them types goes in.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cluster.errors import Conflict
from lxdpy.host.lxc.inside import ConsoleEnd
from lxdpy.host.lxc.pty import resize
from lxdpy.rest.descriptor import Descriptor

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

PART = 1 << 14  # bytes read at a time
NOTICED_WITHIN = 10.0  # seconds for LXC's monitor to see that its console was given back; it takes some ms
LOOK_AGAIN = 0.02  # seconds
MOST_WAITING = 1 << 20  # bytes for one viewer; who is further behind sees no more


class Viewer:
    """What one client has yet to see."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._news = asyncio.Event()

    def show(self, data: bytes) -> None:
        self._parts.append(data)
        self._waiting += len(data)
        self._news.set()
        if self._waiting > MOST_WAITING:
            self.end()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def read(self) -> bytes:
        """What came since the last time; nothing at the end."""
        while not self._parts and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._waiting > MOST_WAITING:
            return b""
        data = b"".join(self._parts)
        self._parts.clear()
        self._waiting = 0
        return data


class Console:
    """One that is open."""

    def __init__(self, end: ConsoleEnd) -> None:
        self._terminal = Descriptor(end.terminal)
        self._kept = [fd for fd in (end.lease, end.inner) if fd >= 0]
        self._inner = end.inner
        self._typing = asyncio.Lock()
        self.viewers: set[Viewer] = set()

    async def copy(self) -> None:
        """What it shows, to all viewers, until the container ends or `close`."""
        try:
            while data := await self._terminal.read(PART):
                for viewer in self.viewers:
                    viewer.show(data)
        finally:
            for viewer in self.viewers:
                viewer.end()

    async def write(self, data: bytes) -> None:
        """As if typed. Raises OSError when it is closed."""
        async with self._typing:
            await self._terminal.write(data)

    def resize(self, rows: int, columns: int) -> None:
        if self._inner >= 0 and self._kept:
            with suppress(OSError):  # the container has ended
                resize(self._inner, rows, columns)

    def close(self) -> None:
        self._terminal.close()
        while self._kept:
            os.close(self._kept.pop())


class Consoles:
    """All that are open on this member, by volume."""

    def __init__(self) -> None:
        self._open: dict[str, Console] = {}
        self._given_back: dict[str, float] = {}  # when, since it was opened the last time
        self.daemon: Daemon  # set by the daemon's main, once there is one

    @asynccontextmanager
    async def viewed(self, volume: str) -> AsyncIterator[tuple[Console, Viewer]]:
        """A console, and what it shows from now on. Raises Conflict if the container does not run."""
        console, viewer = await self._opened(volume), Viewer()
        console.viewers.add(viewer)
        try:
            yield console, viewer
        finally:
            console.viewers.discard(viewer)
            if not console.viewers:
                self._close(volume, console)

    async def _opened(self, volume: str) -> Console:
        async with self.daemon.lock(f"console {volume}"):
            if volume not in self._open:
                console = self._open[volume] = Console(await self._had(volume))
                self.daemon.spawn(self._copy(volume, console), f"console of {volume}")
            return self._open[volume]

    async def _had(self, volume: str) -> ConsoleEnd:
        """LXC's own. Raises Conflict if another program has it, and not only we had a moment ago."""
        runtime, loop = self.daemon.runtime, asyncio.get_running_loop()
        deadline = self._given_back.pop(volume, float("-inf")) + NOTICED_WITHIN
        while True:
            try:
                return await runtime.open_console(volume)
            except Conflict:
                if loop.time() > deadline or runtime.state(volume).status != "Running":
                    raise
            await asyncio.sleep(LOOK_AGAIN)

    async def _copy(self, volume: str, console: Console) -> None:
        try:
            await console.copy()
        finally:
            self._close(volume, console)

    def _close(self, volume: str, console: Console) -> None:
        console.close()
        if self._open.get(volume) is console:
            del self._open[volume]
            self._given_back[volume] = asyncio.get_running_loop().time()
