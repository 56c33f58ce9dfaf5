import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.errors import Conflict
from lxdpy.host.lxc.inside import ConsoleEnd
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.instances.consoles import MOST_WAITING, Consoles, Viewer
from tests.lxdpy.fakes import local_daemon


class Containers:
    """Whose consoles are socket pairs: `far` is what the container has of the last that was opened."""

    def __init__(self) -> None:
        self.opened = 0
        self.far = -1
        self.lease = -1
        self.taken = 0  # so often it is refused

    def state(self, name: str) -> ContainerState:
        return ContainerState("Running", 1)

    async def open_console(self, name: str) -> ConsoleEnd:
        if self.taken:
            self.taken -= 1
            raise Conflict("The console is in use by another program")
        self.opened += 1
        await asyncio.sleep(0)
        near, self.far = os.openpty()
        self.lease, ours = os.pipe()
        return ConsoleEnd(near, ours, -1)

    def given_back(self) -> bool:
        """Whether the lease has been let go of."""
        os.set_blocking(self.lease, False)
        try:
            return os.read(self.lease, 1) == b""
        except BlockingIOError:
            return False


@asynccontextmanager
async def scene(root: Path) -> AsyncIterator[tuple[Consoles, Containers]]:
    consoles, containers = Consoles(), Containers()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        consoles.daemon = local_daemon(root, tasks=tasks, runtime=cast(Any, containers))
        yield consoles, containers


def test_viewers_share_a_console_and_the_last_gives_it_back(tmp_path: Path) -> None:
    async def go() -> None:
        async with scene(tmp_path) as (consoles, containers):
            both = [consoles.viewed("c1") for _ in range(2)]
            (console, one), (same, two) = await asyncio.gather(*(each.__aenter__() for each in both))
            assert console is same
            assert containers.opened == 1
            os.write(containers.far, b"shown")
            assert [await one.read(), await two.read()] == [b"shown", b"shown"]
            await console.write(b"typed\n")
            assert os.read(containers.far, 100) == b"typed\n"
            await both[0].__aexit__(None, None, None)
            assert not containers.given_back()
            await both[1].__aexit__(None, None, None)
            assert containers.given_back()
            async with consoles.viewed("c1"):
                assert containers.opened == 2

    asyncio.run(go())


def test_what_was_just_given_back_is_waited_for_and_what_another_has_is_not(tmp_path: Path) -> None:
    async def go() -> None:
        async with scene(tmp_path) as (consoles, containers):
            containers.taken = 1
            with pytest.raises(Conflict, match="in use"):
                await consoles.viewed("c1").__aenter__()
            async with consoles.viewed("c1"):
                pass
            containers.taken = 3  # as LXC's monitor has not looked yet
            async with consoles.viewed("c1"):
                assert containers.opened == 2

    asyncio.run(go())


def test_a_container_that_ends_ends_its_viewers(tmp_path: Path) -> None:
    async def go() -> None:
        async with scene(tmp_path) as (consoles, containers), consoles.viewed("c1") as (_, viewer):
            os.write(containers.far, b"last words")
            os.close(containers.far)
            assert await viewer.read() == b"last words"
            assert await viewer.read() == b""
            async with consoles.viewed("c1"):
                assert containers.opened == 2

    asyncio.run(go())


def test_a_viewer_that_falls_behind_is_given_up() -> None:
    async def go() -> None:
        slow, quick = Viewer(), Viewer()
        part = bytes(1 << 14)
        for _ in range(MOST_WAITING // len(part) + 1):
            slow.show(part)
            quick.show(part)
            assert await quick.read() == part
        assert await slow.read() == b""

    asyncio.run(go())


def test_who_does_not_read_keeps_nothing_from_who_does(tmp_path: Path) -> None:
    async def go() -> None:
        async with (
            scene(tmp_path) as (consoles, containers),
            consoles.viewed("c1") as (_, stalled),
            consoles.viewed("c1") as (_, reading),
        ):
            much = 2 * MOST_WAITING
            writing = asyncio.create_task(asyncio.to_thread(os.write, containers.far, bytes(much)))
            while much:
                data = await reading.read()
                assert data
                much -= len(data)
            assert await writing == 2 * MOST_WAITING
            assert await stalled.read() == b""

    asyncio.run(go())
