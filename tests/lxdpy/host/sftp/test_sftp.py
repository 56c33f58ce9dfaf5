"""Client and server together, over a socket, on folders of the test's own."""

import asyncio
import errno
import os
import random
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lxdpy.host.sftp import client, words
from lxdpy.host.sftp.client import Sftp
from lxdpy.host.sftp.server import Server
from lxdpy.host.sftp.words import Attributes

Scene = Callable[[Sftp], Awaitable[None]]


def serving() -> tuple[socket.socket, threading.Thread]:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            Server(theirs).serve()

    thread = threading.Thread(target=serve)
    thread.start()
    return ours, thread


def play(scene: Scene) -> None:
    async def run() -> None:
        sftp = await Sftp.over(ours)
        try:
            await scene(sftp)
            assert sftp.usable, "an answer was left lying"
        finally:
            sftp.close()
            await asyncio.sleep(0)  # the loop closes the socket

    ours, thread = serving()
    asyncio.run(run())
    thread.join(10)
    assert not thread.is_alive()


async def parts_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def write(sftp: Sftp, path: bytes, data: bytes, flags: int = client.CREATE) -> None:
    async with sftp.open(path, client.WRITE | flags) as file:
        await file.write(parts_of(data, 300_000))


async def read(sftp: Sftp, path: bytes) -> bytes:
    async with sftp.open(path, client.READ) as file:
        size = (await sftp.stat(path)).size or 0
        return b"".join([bytes(part) async for part in file.stream(0, size)])


def test_a_file_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_001)
    path = bytes(tmp_path / "f")

    async def scene(sftp: Sftp) -> None:
        await write(sftp, path, data)
        assert await read(sftp, path) == data
        async with sftp.open(path, client.READ) as file:
            assert [bytes(part) async for part in file.stream(5, 15)] == [data[5:15]]
            assert bytes(await file.read(3_000_000)) == data[-1:]
            assert not await file.read(3_000_001)
        await write(sftp, path, b"more", client.APPEND)
        assert await read(sftp, path) == data + b"more"
        await write(sftp, path, b"less", client.TRUNCATE)
        assert await read(sftp, path) == b"less"

    play(scene)


def test_a_file_that_became_shorter_ends_early_and_spoils_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(2 * words.PART))

    async def scene(sftp: Sftp) -> None:
        async with sftp.open(bytes(tmp_path / "f"), client.READ) as file:
            sizes = [len(part) async for part in file.stream(0, 9 * words.PART)]
        assert sizes == [words.PART, words.PART]

    play(scene)


def test_a_refused_write_is_told_though_more_was_sent_ahead() -> None:
    async def scene(sftp: Sftp) -> None:
        async with sftp.open(b"/proc/self/attr/current", client.WRITE) as file:
            with pytest.raises(OSError, match=r"\w"):
                await file.write(parts_of(bytes(10 * words.PART), words.PART))

    play(scene)


def test_folders_links_and_attributes(tmp_path: Path) -> None:
    top = bytes(tmp_path)

    async def scene(sftp: Sftp) -> None:
        await sftp.make_folder(top + b"/d", 0o700)
        await sftp.change(top + b"/d", Attributes(mode=0o2751, times=(1, 2)))
        known = await sftp.lstat(top + b"/d")
        assert (known.kind, (known.mode or 0) & 0o7777, known.times) == ("directory", 0o2751, (1, 2))
        assert known.ids == (os.getuid(), os.getgid())
        await sftp.link(b"../d", top + b"/d/l")
        assert (await sftp.lstat(top + b"/d/l")).kind == "symlink"
        assert (await sftp.stat(top + b"/d/l")).kind == "directory"
        assert await sftp.read_link(top + b"/d/l") == b"../d"
        names = [b"%d" % n for n in range(250)] + [b"odd \xff\n"]
        for name in names:
            (tmp_path / "d" / os.fsdecode(name)).touch()
        assert sorted(await sftp.names(top + b"/d")) == sorted([*names, b"l"])
        with pytest.raises(OSError, match="directory not empty"):
            await sftp.remove(top + b"/d")
        for name in (*names, b"l"):
            await sftp.remove(top + b"/d/" + name)
        await sftp.remove(top + b"/d")
        assert not await sftp.names(top)

    play(scene)


def test_refusals_are_those_of_the_kernel(tmp_path: Path) -> None:
    top = bytes(tmp_path)
    (tmp_path / "f").touch()
    os.mkfifo(tmp_path / "pipe")

    async def scene(sftp: Sftp) -> None:
        for number, work in (
            (errno.ENOENT, sftp.lstat(top + b"/no")),
            (errno.ENOTDIR, sftp.lstat(top + b"/f/x")),
            (errno.EEXIST, sftp.link(b"x", top + b"/f")),
            (errno.EINVAL, sftp.read_link(top + b"/f")),
            (errno.EINVAL, sftp.lstat(b"nul\0byte")),
            (errno.EISDIR, write(sftp, top, b"x")),
            (errno.ENAMETOOLONG, sftp.lstat(b"x" * 300)),
            (errno.EOPNOTSUPP, read(sftp, b"/dev/null")),
            (errno.EOPNOTSUPP, read(sftp, top + b"/pipe")),
            (errno.EOPNOTSUPP, write(sftp, top + b"/pipe", b"x")),
        ):
            with pytest.raises(OSError, match=r"\w") as told:
                await work
            assert told.value.errno == number

    play(scene)


def test_a_server_that_is_gone_is_a_broken_connection() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(words.packet(words.VERSION_REPLY, words.number(words.VERSION)))
        sftp = await Sftp.over(ours)
        theirs.close()
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await sftp.lstat(b"/")
        assert sftp.closed

    asyncio.run(run())


def test_garbage_is_answered_or_ends_the_connection(tmp_path: Path) -> None:
    choice = random.Random(7)
    kinds = [0, *range(1, 21), words.EXTENDED, 255]
    for _ in range(300):
        ours, thread = serving()
        with ours:
            body = bytes((choice.choice(kinds),)) + choice.randbytes(choice.randrange(40))
            ours.sendall(words.number(len(body)) + body)
            ours.sendall(choice.randbytes(choice.randrange(8)))
            ours.shutdown(socket.SHUT_WR)
            while ours.recv(1 << 16):
                pass
        thread.join(10)
        assert not thread.is_alive()
