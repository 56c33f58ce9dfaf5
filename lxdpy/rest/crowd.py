"""Descriptors of which a thousand may be ready at once: those of attached programs and of their clients.

asyncio serves all that is ready before it looks again, so a request that comes meanwhile would wait for all
of them, once for each step that it takes. So in one pass of the loop only a few of the crowd are served, in
turns, and all others that are ready: requests, other members, the helper.
"""

import asyncio
import select
import selectors
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 8  # of the crowd; what follows from one takes 0.1 to 0.3 ms


@contextmanager
def within(transport: asyncio.BaseTransport | None) -> Iterator[None]:
    """A connection, for as long as the block runs; None, of one that is lost, is fine."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    fd = sock.fileno() if sock is not None else -1
    join(fd)
    try:
        yield
    finally:
        leave(fd)


def join(fd: int) -> None:
    """On a loop of another kind than ours it makes no difference."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, Loop) and fd >= 0:
        loop.selector.join(fd)


def leave(fd: int) -> None:
    """Before it is closed: its number may be another's then."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        loop.selector.leave(fd)


class _Epoll:
    """As `select.epoll`; the crowd has one of its own within, which tells of a few at a time, in turns."""

    def __init__(self) -> None:
        self.members: set[int] = set()
        self._all, self._crowd = select.epoll(), select.epoll()
        self._inside = self._crowd.fileno()
        self._all.register(self._inside, select.EPOLLIN)
        self._places: dict[int, select.epoll] = {}

    def fileno(self) -> int:
        return self._all.fileno()

    def register(self, fd: int, events: int) -> None:
        place = self._crowd if fd in self.members else self._all
        place.register(fd, events)
        self._places[fd] = place

    def modify(self, fd: int, events: int) -> None:
        self._places[fd].modify(fd, events)

    def unregister(self, fd: int) -> None:
        self._places.pop(fd).unregister(fd)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        ready = self._all.poll(timeout, most + 1)
        others = [one for one in ready if one[0] != self._inside]
        return ready if len(others) == len(ready) else others + self._crowd.poll(0, AT_ONCE)

    def close(self) -> None:
        self._crowd.close()
        self._all.close()


class Selector(selectors.EpollSelector):
    _selector_cls = _Epoll
    _selector: _Epoll

    def join(self, fd: int) -> None:
        self._selector.members.add(fd)
        if (key := self.get_map().get(fd)) is not None:  # it is watched already
            self.unregister(fd)
            self.register(key.fileobj, key.events, key.data)

    def leave(self, fd: int) -> None:
        """It stays in its place until it is no longer watched."""
        self._selector.members.discard(fd)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)
