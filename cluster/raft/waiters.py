"""Who waits for a log index to be applied on this member. On the API loop."""

import asyncio
import heapq
import itertools

from cluster.errors import Unavailable


class IndexWaiters:
    def __init__(self) -> None:
        self.applied = 0
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []  # index, tie-breaker, future
        self._tie = itertools.count()

    async def wait(self, index: int, timeout: float) -> None:
        """Raises Unavailable."""
        if self.applied >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (index, next(self._tie), future))
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise Unavailable("This member is behind the cluster") from None

    def reached(self, index: int) -> None:
        self.applied = index
        while self._heap and self._heap[0][0] <= index:
            _, _, future = heapq.heappop(self._heap)
            if not future.done():
                future.set_result(None)

    def give_up(self) -> None:
        for _, _, future in self._heap:
            if not future.done():
                future.set_exception(Unavailable("This member is stopping"))
        self._heap.clear()
