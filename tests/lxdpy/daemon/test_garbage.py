import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from lxdpy.daemon.garbage import FEW, GROWN, LOST, Garbage


class Ring:
    """Refers to itself, so that only a collection ends it."""

    def __init__(self, size: int) -> None:
        self.me = self
        self.much = [[number] for number in range(size)]


@contextmanager
def garbage(busy: int) -> Iterator[Garbage]:
    gc.collect()
    found = Garbage(lambda: busy)
    found.begin()
    try:
        yield found
    finally:
        found.end()


def lost(times: int) -> "weakref.ref[Ring]":
    """A ring that was set aside alive, with so many times what was there before, and that nobody has now."""
    ring = Ring(times * gc.get_freeze_count())
    gc.collect()
    return weakref.ref(ring)


def test_what_survived_a_collection_is_not_looked_at_by_the_next() -> None:
    async def go() -> None:
        with garbage(busy=0):
            before, gone = gc.get_freeze_count(), lost(1)
            assert gc.get_freeze_count() > 1.5 * before
            gc.collect()
            assert gone() is not None

    asyncio.run(go())


def test_garbage_among_it_is_found_when_few_are_busy() -> None:
    async def go() -> None:
        with garbage(busy=FEW - 1) as found:
            gone = lost(GROWN)
            await found.look()
            assert gone() is None

    asyncio.run(go())


def test_nobody_waits_for_it_while_many_are_busy_unless_it_is_very_much() -> None:
    async def go() -> None:
        with garbage(busy=FEW) as found:
            gone = lost(GROWN)
            await found.look()
            assert gone() is not None
            found._kept //= LOST
            await found.look()
            assert gone() is None

    asyncio.run(go())


def test_a_little_is_left_alone() -> None:
    async def go() -> None:
        with garbage(busy=0) as found:
            gone = lost(0)
            await found.look()
            assert gone() is not None

    asyncio.run(go())
