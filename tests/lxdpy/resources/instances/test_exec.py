"""Joining a program with its client, whose sockets are real ones."""

import asyncio
import os
from pathlib import Path

import aiohttp

from lxdpy.host.lxc.client import ExecSession
from lxdpy.resources.instances.exec import attend
from lxdpy.resources.operations.handlers import routes
from lxdpy.resources.operations.operation import Operation
from lxdpy.rest.descriptor import Descriptor
from lxdpy.rest.websocket import Sockets
from tests.lxdpy.fakes import LocalStore, local_daemon, serving

NAMES = ("0", "1", "2", "control")
FULL = 50  # times that nothing more goes in


async def fill(pipe: int) -> int:
    """Bytes that go into it while nobody reads at the far end."""
    os.set_blocking(pipe, False)
    size = refused = 0
    while refused < FULL:
        try:
            size += os.write(pipe, b"x" * 4096)
            refused = 0
        except BlockingIOError:
            refused += 1
            await asyncio.sleep(0.01)
    return size


def test_what_a_program_wrote_waits_for_a_client_that_reads_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = local_daemon(tmp_path, LocalStore(), tasks=tasks)
            (_, stdin), (out, into), (err, silent) = (os.pipe() for _ in range(3))
            session, sockets = ExecSession(), Sockets(NAMES)

            async def work(_: Operation) -> None:
                await sockets.wait()
                with Descriptor(stdin) as first, Descriptor(out) as one, Descriptor(err) as two:
                    assert await attend(session, sockets, None, first, {"1": one, "2": two}) == 7

            connector = aiohttp.UnixConnector(str(tmp_path / "unix.socket"))
            async with (
                serving(daemon, routes),
                aiohttp.ClientSession(connector=connector, read_bufsize=1024) as client,
            ):
                made = daemon.operations.start("", {}, work, kind="websocket", sockets=sockets)
                url = f"http://lxd/1.0/operations/{made.id}/websocket?secret="
                streams = [await client.ws_connect(url + sockets.fds[n], max_msg_size=0) for n in NAMES]
                written = await fill(into)
                os.close(into)
                os.close(silent)
                session.ended(7)
                for _ in range(10):
                    await asyncio.sleep(0)
                loop = asyncio.get_running_loop()
                now = loop.time
                loop.time = lambda: now() + 3600  # type: ignore[method-assign]
                await asyncio.sleep(0.1)
                assert not made.is_final
                read = 0
                async for message in streams[1]:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        break
                    read += len(message.data)
                assert read == written
                assert await made.wait(30)
                assert made.err == ""
                for stream in streams:
                    await stream.close()

    asyncio.run(main())
