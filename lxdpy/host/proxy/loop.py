"""What the proxy's process turns in: descriptors, and things to do later. Standard library only."""

import heapq
import itertools
import select
import time
from collections.abc import Callable

Ready = Callable[[], None]


class Loop:
    """Level-triggered. A descriptor of which nothing is wanted is not waited for: it would keep us awake."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._wanted: dict[int, int] = {}
        self._later: list[tuple[float, int, Ready]] = []
        self._number = itertools.count()

    def want(self, fd: int, ready: Ready, *, read: bool, write: bool) -> None:
        """Call `ready` when one of these is possible, or the descriptor has failed."""
        wanted = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
        before = self._wanted.get(fd, 0)
        self._ready[fd] = ready
        if wanted == before:
            return
        if not wanted:
            self._poll.unregister(fd)
        elif before:
            self._poll.modify(fd, wanted)
        else:
            self._poll.register(fd, wanted)
        self._wanted[fd] = wanted

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        if self._wanted.pop(fd, 0):
            self._poll.unregister(fd)
        self._ready.pop(fd, None)

    def later(self, seconds: float, ready: Ready) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._number), ready))

    def turn(self) -> None:
        """Wait for something, and do it."""
        wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else -1
        for fd, _ in self._poll.poll(wait):
            if fd in self._ready:  # another's doing may have ended it meanwhile
                self._ready[fd]()
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
