"""File servers: who gets one, and that none is left."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.errors import Unavailable
from lxdpy.host.lxc.files import FileServer
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.instances.file_sessions import FileSessions
from tests.lxdpy.resources.instances.scene import FakeRuntime, house, instance, ready_store

KEY = "default/c1"


class Server:
    """In a container; it has gone already."""

    def __init__(self) -> None:
        self.ended = 0

    def take(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    async def end(self) -> None:
        self.ended += 1


class Containers(FakeRuntime):
    """`meanwhile` is done while a server is begun."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.states["c1"] = ContainerState("Running", 7)
        self.servers: list[Server] = []
        self.meanwhile: Callable[[], object] = lambda: None

    async def serve_files(self, name: str) -> FileServer:
        self.servers.append(server := Server())
        self.meanwhile()
        return cast(FileServer, server)


def with_sessions(root: Path, story: Callable[[FileSessions, Containers], Awaitable[None]]) -> None:
    async def main() -> None:
        store = ready_store()
        instance(store, "c1", "Running")
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(root, store, tasks)
            daemon.runtime = cast(Any, runtime := Containers(root))
            daemon.files.daemon = daemon
            await story(daemon.files, runtime)

    asyncio.run(main())


def test_one_that_cannot_be_spoken_to_is_not_left(tmp_path: Path) -> None:
    async def story(files: FileSessions, runtime: Containers) -> None:
        with pytest.raises(Unavailable):
            async with files.sftp(KEY):
                pass
        assert [server.ended for server in runtime.servers] == [1]
        assert files._sessions == {}

    with_sessions(tmp_path, story)


def test_one_in_a_container_that_has_rebooted_meanwhile_is_not_given(tmp_path: Path) -> None:
    async def story(files: FileSessions, runtime: Containers) -> None:
        runtime.meanwhile = lambda: runtime.states.update(c1=ContainerState("Running", 8))
        with pytest.raises(Unavailable):
            async with files.server(KEY):
                pass
        assert [server.ended for server in runtime.servers] == [1]
        async with files.server(KEY):
            assert [server.ended for server in runtime.servers] == [1, 0]

    with_sessions(tmp_path, story)


def test_one_whose_time_is_up_is_given_to_nobody(tmp_path: Path) -> None:
    async def story(files: FileSessions, runtime: Containers) -> None:
        session = await files._begin(KEY)
        session.timer = asyncio.get_running_loop().call_later(3600, files._expire, session)
        assert files._waiting(KEY) is session
        session.timer = asyncio.get_running_loop().call_later(3600, files._expire, session)
        session.timer.cancel()
        files._expire(session)  # which ends it a moment later
        assert files._waiting(KEY) is None

    with_sessions(tmp_path, story)
