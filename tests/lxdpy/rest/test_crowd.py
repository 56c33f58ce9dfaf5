import asyncio
import os
import selectors
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lxdpy.rest import crowd
from lxdpy.rest.crowd import AT_ONCE, Loop, Selector
from lxdpy.rest.descriptor import Descriptor


@contextmanager
def ready(number: int) -> Iterator[Sequence[int]]:
    """Read ends of so many pipes with something in them."""
    pipes = [os.pipe() for _ in range(number)]
    for _, end in pipes:
        os.write(end, b"!")
    yield [end for end, _ in pipes]
    for both in pipes:
        for end in both:
            os.close(end)


def found(selector: Selector) -> set[int]:
    return {key.fd for key, _ in selector.select(0)}


def test_a_few_of_the_crowd_are_served_at_once_and_all_others() -> None:
    with ready(3 * AT_ONCE) as many, ready(2 * AT_ONCE) as others, Selector() as selector:
        for fd in many:
            selector.join(fd)
        for fd in (*many, *others):
            selector.register(fd, selectors.EVENT_READ)
        seen = found(selector)
        assert seen >= set(others)
        assert len(seen - set(others)) == AT_ONCE


def test_all_of_the_crowd_have_their_turn_though_the_first_stay_ready() -> None:
    with ready(3 * AT_ONCE) as many, Selector() as selector:
        for fd in many:
            selector.join(fd)
            selector.register(fd, selectors.EVENT_READ)
        assert set.union(*(found(selector) for _ in range(3))) == set(many)


def test_what_is_watched_already_may_join_and_keeps_what_it_is_watched_for() -> None:
    with ready(2 * AT_ONCE) as many, Selector() as selector:
        for fd in many:
            selector.register(fd, selectors.EVENT_READ, "its data")
        assert len(found(selector)) == 2 * AT_ONCE
        for fd in many:
            selector.join(fd)
        assert len(found(selector)) == AT_ONCE
        assert {key.data for key, _ in selector.select(0)} == {"its data"}


def test_the_next_one_of_that_number_is_not_of_the_crowd() -> None:
    with ready(2 * AT_ONCE) as many, Selector() as selector:
        for fd in many:
            selector.join(fd)
            selector.register(fd, selectors.EVENT_READ)
            selector.leave(fd)
            selector.unregister(fd)
            selector.register(fd, selectors.EVENT_READ)
        assert found(selector) == set(many)


def test_descriptors_and_connections_of_the_crowd_are_read_and_written() -> None:
    async def main() -> None:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        out, into = os.pipe()
        with crowd.within(writer.transport), Descriptor(out) as source, Descriptor(into) as sink:
            for _ in range(2):
                there.send(b"asked")
                await sink.write(await reader.readexactly(5))
                writer.write(await source.read(100))
                await writer.drain()
                assert await asyncio.to_thread(there.recv, 100) == b"asked"
        there.send(b"more")
        assert await reader.readexactly(4) == b"more"
        writer.close()
        there.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
