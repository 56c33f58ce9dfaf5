"""Sockets of operations against real pipes and ptys; the client does what the stock one does."""

import asyncio
import fcntl
import os
import pty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from cluster.errors import Unavailable
from lxdpy.daemon.context import Daemon
from lxdpy.resources.operations.handlers import routes
from lxdpy.resources.operations.operation import Operation
from lxdpy.rest import websocket
from lxdpy.rest.descriptor import Descriptor
from lxdpy.rest.websocket import Control, Sockets, from_fd, pipes, terminal, text_frame
from tests.lxdpy.fakes import Local, LocalStore, local_daemon, serving
from tests.patience import WITHIN, eventually

Stream = aiohttp.ClientWebSocketResponse
Work = Callable[[Operation], Awaitable[None]]


def run(root: Path, check: Callable[[Local, Daemon], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = local_daemon(root, LocalStore(), tasks=tasks)
            async with serving(daemon, routes) as client:
                await check(client, daemon)

    asyncio.run(main())


async def connect(client: Local, operation: Operation, name: str, *, autoping: bool = True) -> Stream:
    assert operation.sockets is not None
    secret = operation.sockets.fds[name]
    url = f"{client.base}/1.0/operations/{operation.id}/websocket?secret={secret}"
    return await client.session.ws_connect(url, max_msg_size=0, autoping=autoping)


@asynccontextmanager
async def begun(
    client: Local, daemon: Daemon, names: str, work: Work
) -> AsyncIterator[tuple[Operation, list[Stream]]]:
    """An operation of class websocket whose client has opened all its sockets, in the order of `names`."""
    sockets = Sockets(names.split())
    operation = daemon.operations.start("Executing command", {}, work, kind="websocket", sockets=sockets)
    streams = [await connect(client, operation, name) for name in names.split()]
    yield operation, streams
    for stream in streams:
        await stream.close()
    assert await operation.wait(WITHIN)


async def until_barrier(stream: Stream) -> bytes:
    """All data up to the empty text frame that ends it."""
    data = b""
    async for message in stream:
        if message.type is aiohttp.WSMsgType.TEXT:
            assert message.data == ""
            return data
        data += message.data
    raise AssertionError("no end of stream")


def test_a_client_that_answers_no_pings_keeps_its_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock client only writes to some of its sockets, and never looks whether something comes."""
    monkeypatch.setattr(websocket, "PING_EVERY", 0.01)

    async def check(client: Local, daemon: Daemon) -> None:
        heard: list[Control] = []

        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            async for message in operation.sockets.controls():
                heard.append(message)

        sockets = Sockets(["control"])
        operation = daemon.operations.start("Executing", {}, work, kind="websocket", sockets=sockets)
        control = await connect(client, operation, "control", autoping=False)
        await asyncio.sleep(0.3)
        assert not operation.is_final
        await control.send_json({"command": "signal", "signal": 15})
        assert (await control.receive(WITHIN)).type is aiohttp.WSMsgType.PING
        await control.close()
        assert await operation.wait(WITHIN)
        assert [message.signal for message in heard] == [15]

    run(tmp_path, check)


def test_three_streams_pass_between_client_and_program(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
            program = await asyncio.create_subprocess_exec(
                "sh", "-c", "cat; echo wrong >&2; exit 7", stdin=stdin[0], stdout=stdout[1], stderr=stderr[1]
            )
            for fd in (stdin[0], stdout[1], stderr[1]):
                os.close(fd)
            with Descriptor(stdin[1]) as near, Descriptor(stdout[0]) as out, Descriptor(stderr[0]) as err:
                async with asyncio.TaskGroup() as both:
                    both.create_task(pipes(operation.sockets, near, {"1": out, "2": err}))
                    operation.update(**{"return": await program.wait()})
                    out.finish()
                    err.finish()

        async with begun(client, daemon, "0 1 2 control", work) as (operation, (zero, one, two, _)):
            body = os.urandom(3_000_000)
            output = asyncio.ensure_future(until_barrier(one))
            for start in range(0, len(body), 100_000):
                await zero.send_bytes(body[start : start + 100_000])
            await zero.send_str("")  # the stock client's end of stdin
            assert await output == body
            assert await until_barrier(two) == b"wrong\n"
            assert (await one.receive(timeout=WITHIN)).data == 1000
            assert operation.shown().metadata == {"fds": operation.metadata["fds"], "return": 7}

    run(tmp_path, check)


@pytest.mark.parametrize(("how", "status"), [("goes away", -1), ("ends its stdin", 0)])  # -1: SIGHUP
def test_a_terminal_is_joined_and_ended_with_its_client(tmp_path: Path, how: str, status: int) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        gone: list[int] = []

        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            master, slave = pty.openpty()
            program = await asyncio.create_subprocess_exec(
                "cat", stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, 0x540E, 0),  # TIOCSCTTY
            )  # fmt: skip
            os.close(slave)
            with Descriptor(master) as near:
                async with asyncio.TaskGroup() as both:
                    both.create_task(terminal(operation.sockets, near))
                    gone.append(await program.wait())
                    near.finish()

        async with begun(client, daemon, "0 control", work) as (operation, (zero, _)):
            await zero.send_bytes(b"hello\n")
            assert (await zero.receive_bytes(timeout=WITHIN)).startswith(b"hello\r\n")
            await zero.send_bytes(b"half a line")
            await (zero.close() if how == "goes away" else zero.send_str(""))
            assert await operation.wait(WITHIN)
        assert gone == [status]

    run(tmp_path, check)


def test_a_daemon_left_behind_does_not_keep_the_stream_open(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            reader, writer = os.pipe()
            os.write(writer, b"all of it")
            with Descriptor(reader) as out:
                out.finish()  # the program has ended; somebody else still has the other end open
                await from_fd(out, await operation.sockets.get("1"))
            os.close(writer)

        async with begun(client, daemon, "1", work) as (_, (one,)):
            async with asyncio.timeout(WITHIN):
                assert await until_barrier(one) == b"all of it"

    run(tmp_path, check)


def test_a_slow_client_holds_up_the_program_instead_of_filling_memory(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        written = [0]

        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            reader, writer = os.pipe()
            with Descriptor(reader) as out, Descriptor(writer) as into:

                async def produce() -> None:
                    for _ in range(100):
                        await into.write(b"x" * 65536)
                        written[0] += 65536
                    into.close()

                async with asyncio.TaskGroup() as both:
                    both.create_task(produce())
                    both.create_task(from_fd(out, await operation.sockets.get("1")))

        sockets = Sockets(["1"])
        operation = daemon.operations.start("Executing command", {}, work, kind="websocket", sockets=sockets)
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(tmp_path / "unix.socket")), read_bufsize=1024
        ) as session:
            url = f"http://lxd/1.0/operations/{operation.id}/websocket?secret={sockets.fds['1']}"
            stream = await session.ws_connect(url, max_msg_size=0)
            await asyncio.sleep(0.3)
            assert written[0] < 4 << 20
            assert len(await until_barrier(stream)) == 100 * 65536
        assert await operation.wait(WITHIN)

    run(tmp_path, check)


def test_what_was_sent_is_taken_when_the_client_has_read_it_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_WITHIN", 60.0)

    async def check(client: Local, daemon: Daemon) -> None:
        told: list[str] = []

        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            stdout = await operation.sockets.get("1")
            await stdout.send_bytes(b"all of it")
            await stdout.send_str("")
            await operation.sockets.taken(("1",))
            told.append("failed")

        async with begun(client, daemon, "0 1 control", work) as (_, streams):
            assert await until_barrier(streams[1]) == b"all of it"
            told.append("read")
            await streams[1].close()
        assert told == ["read", "failed"]

    run(tmp_path, check)


def test_a_slow_reader_of_output_is_not_cut_off_behind_the_end(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            await (await operation.sockets.get("1")).send_bytes(b"all of it")

        sockets = Sockets(["1"], outputs=["1"])
        operation = daemon.operations.start("Executing command", {}, work, kind="websocket", sockets=sockets)
        stream = await connect(client, operation, "1")
        served = await sockets.get("1")
        assert await operation.wait(30)
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        now = loop.time
        loop.time = lambda: now() + 3600  # type: ignore[method-assign]
        await asyncio.sleep(0.01)
        assert served.close_code is None
        assert (await stream.receive()).data == b"all of it"
        assert (await stream.receive()).type is aiohttp.WSMsgType.CLOSE
        await eventually(lambda: served.close_code == 1000)

    run(tmp_path, check)


def test_a_program_whose_reader_is_lost_is_told_so(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            reader, writer = os.pipe()
            async with asyncio.timeout(WITHIN):
                with Descriptor(reader) as out, Descriptor(writer) as into:
                    passing = asyncio.create_task(from_fd(out, await operation.sockets.get("1")))
                    with pytest.raises(BrokenPipeError):
                        await into.write(bytes(1 << 26))
                    await passing

        async with begun(client, daemon, "1", work) as (operation, (one,)):
            one._response.close()  # without a word
            assert await operation.wait(WITHIN)
            assert operation.err == ""

    run(tmp_path, check)


def test_a_secret_opens_one_socket_once(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            await operation.sockets.wait()
            await (await operation.sockets.get("0")).receive()

        async with begun(client, daemon, "0", work) as (operation, (zero,)):
            for secret, status in ((operation.metadata["fds"]["0"], 403), ("0" * 64, 403)):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await client.session.ws_connect(
                        f"{client.base}/1.0/operations/{operation.id}/websocket?secret={secret}"
                    )
                assert refused.value.status == status
            assert len(operation.metadata["fds"]["0"]) == 64
            await zero.close()
            await operation.wait(WITHIN)
            answer = await client.ask("GET", f"/1.0/operations/{operation.id}/websocket?secret=x")
            assert answer["error"] == "Only running operations can be connected"

    run(tmp_path, check)


def test_control_messages_arrive_in_order_and_rubbish_is_left_out(tmp_path: Path) -> None:
    async def check(client: Local, daemon: Daemon) -> None:
        heard: list[Control] = []

        async def work(operation: Operation) -> None:
            assert operation.sockets is not None
            async for control in operation.sockets.controls():
                heard.append(control)

        async with begun(client, daemon, "0 control", work) as (operation, (_, control)):
            resize = {"command": "window-resize", "args": {"width": "80", "height": "25"}}
            await control.send_str(msgspec.json.encode(resize).decode())
            await control.send_str("rubbish")
            await control.send_bytes(b'{"command":"signal","signal":15,"from_the_future":1}')
            await control.close()
            assert await operation.wait(WITHIN)
        assert heard == [
            Control("window-resize", {"width": "80", "height": "25"}),
            Control("signal", signal=15),
        ]

    run(tmp_path, check)


def test_a_client_that_does_not_connect_is_not_waited_for_for_ever() -> None:
    async def main() -> None:
        with pytest.raises(Unavailable, match="websockets"):
            await Sockets(["0", "control"]).wait(timeout=0.05)

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_frame_made_by_hand_is_read_by_a_real_client(size: int) -> None:
    frame = text_frame(b"x" * size)
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(frame) == head + size
    assert frame[0] == 0x81
    assert frame[1] == min(size, 126 if size < 65536 else 127)


def test_closing_a_descriptor_wakes_who_waits_for_it() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        with Descriptor(reader) as near, Descriptor(writer) as far:
            reading = asyncio.ensure_future(near.read(10))
            writing = asyncio.ensure_future(far.write(b"x" * 1_000_000))
            await asyncio.sleep(0)
            assert await reading != b""
            reading = asyncio.ensure_future(near.read(1_000_000))
            assert await reading != b""
            far.close()
            with pytest.raises(BrokenPipeError):
                await writing
            near.close()
            assert await near.read(1) == b""

    asyncio.run(main())
