"""The daemon's side. Failures are OSErrors, with the
path as their file name.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import socket
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from lxdpy.host.sftp import words
from lxdpy.host.sftp.words import Attributes, Parts, number, packet, text

READ, WRITE, CREATE = words.FLAG_READ, words.FLAG_WRITE, words.FLAG_CREATE
APPEND, TRUNCATE, EXCLUSIVE = words.FLAG_APPEND, words.FLAG_TRUNCATE, words.FLAG_EXCLUSIVE

DEEP = 4  # requests under way for one file: while one is served, the next is on its way

ERRNO_OF = {words.NO_SUCH_FILE: errno.ENOENT, words.PERMISSION_DENIED: errno.EACCES}


class Sftp:
    """For one user at a time. `usable` is false when a request was given up half-way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._unanswered = 0
        self.closed = False  # by us, or as the server is gone

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """On a connected stream socket, which is its own from now on."""
        found = cls(*await asyncio.open_unix_connection(sock=end, limit=2 * words.LIMIT))
        found._unanswered += 1
        found._writer.write(packet(words.INIT, number(words.VERSION)))
        await found._receive()
        return found

    @property
    def usable(self) -> bool:
        return not self.closed and not self._unanswered

    def close(self) -> None:
        self.closed = True
        self._writer.close()

    async def lstat(self, path: bytes) -> Attributes:
        return (await self._ask(words.LSTAT, path, text(path))).attributes()

    async def stat(self, path: bytes) -> Attributes:
        return (await self._ask(words.STAT, path, text(path))).attributes()

    async def change(self, path: bytes, wanted: Attributes) -> None:
        await self._ask(words.SETSTAT, path, text(path), wanted.packed())

    async def read_link(self, path: bytes) -> bytes:
        parts = await self._ask(words.READLINK, path, text(path))
        parts.number()
        return parts.text()

    async def link(self, target: bytes, path: bytes) -> None:
        """Make a symbolic one."""
        await self._ask(words.SYMLINK, path, text(target), text(path))

    async def make_folder(self, path: bytes, mode: int) -> None:
        await self._ask(words.MKDIR, path, text(path), Attributes(mode=mode).packed())

    async def remove(self, path: bytes) -> None:
        """A file, a link, or an empty folder."""
        try:
            await self._ask(words.REMOVE, path, text(path))
        except IsADirectoryError:
            await self._ask(words.RMDIR, path, text(path))

    async def names(self, path: bytes) -> list[bytes]:
        """What is in a folder, in the file system's order."""
        found: list[bytes] = []
        folder = (await self._ask(words.OPENDIR, path, text(path))).text()
        try:
            while some := await self._some_names(path, folder):
                found += some
        finally:
            await self._shut(path, folder)
        return [name for name in found if name not in (b".", b"..")]

    async def _some_names(self, path: bytes, folder: bytes) -> list[bytes]:
        found = []
        try:
            parts = await self._ask(words.READDIR, path, text(folder))
        except EOFError:
            return []
        for _ in range(parts.number()):
            found.append(parts.text())
            parts.text()
            parts.attributes()
        return found

    @asynccontextmanager
    async def open(self, path: bytes, flags: int, mode: int = 0o644) -> AsyncIterator["File"]:
        parts = await self._ask(words.OPEN, path, text(path), number(flags), Attributes(mode=mode).packed())
        file = File(self, path, parts.text())
        try:
            yield file
        finally:
            await self._shut(path, file.handle)

    async def _shut(self, path: bytes, handle: bytes) -> None:
        if self.usable:
            await self._ask(words.CLOSE, path, text(handle))

    async def _ask(self, kind: int, path: bytes, *parts: bytes) -> Parts:
        """The parts of the answer after its id."""
        await self.send(kind, *parts)
        return await self.answer(path)

    async def send(self, kind: int, *parts: bytes, data: bytes | None = None) -> None:
        """A request, with `data` at its end; `answer` must follow.

        Raises ConnectionError when the server is gone.
        """
        if self.closed:
            raise ConnectionResetError("the file server is gone")
        self._unanswered += 1
        self._writer.write(packet(kind, number(next(self._numbers)), *parts, data=data))
        if data:
            self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.close()
            raise

    async def answer(self, path: bytes) -> Parts:
        """To the oldest request that has none yet; the server keeps the order."""
        answered, reply = await self._receive()
        reply.number()
        if answered != words.STATUS:
            return reply
        code, message, tag = reply.number(), reply.text().decode(), reply.text().decode()
        if code == words.OK:
            return reply
        if code == words.EOF:
            raise EOFError(message)
        known = getattr(errno, tag.removeprefix(words.ERRNO), None) if tag.startswith(words.ERRNO) else None
        raise OSError(known or ERRNO_OF.get(code, errno.EIO), message, os.fsdecode(path))

    async def _receive(self) -> tuple[int, Parts]:
        try:
            size = int.from_bytes(await self._reader.readexactly(4))
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            raise ConnectionResetError("the file server is gone") from None
        self._unanswered -= 1
        parts = Parts(body)
        return parts.byte(), parts


class File:
    """An open file."""

    def __init__(self, sftp: Sftp, path: bytes, handle: bytes) -> None:
        self._sftp = sftp
        self._path = path
        self.handle = handle

    async def change(self, wanted: Attributes) -> None:
        await self._sftp._ask(words.FSETSTAT, self._path, text(self.handle), wanted.packed())

    async def read(self, offset: int, size: int = words.PART) -> memoryview:
        """At most `size` bytes, or `words.PART`; none at the end."""
        await self._ask_for(offset, size)
        return await self._got()

    async def stream(self, start: int, end: int) -> AsyncIterator[memoryview]:
        """These bytes, some asked for ahead; fewer when the file became shorter."""
        ahead: deque[int] = deque()
        whole = True
        while True:
            while whole and start < end and len(ahead) < DEEP:
                size = min(words.PART, end - start)
                await self._ask_for(start, size)
                ahead.append(size)
                start += size
            if not ahead:
                return
            size, data = ahead.popleft(), await self._got()
            if whole and data:
                yield data
            whole = whole and len(data) == size

    async def write(self, parts: AsyncIterable[bytes]) -> None:
        """From the first byte on (or, opened to append, after the last), some sent ahead of their answers."""
        offset = waiting = 0
        try:
            async for part in parts:
                for start in range(0, len(part), words.PART):
                    data = part[start : start + words.PART]
                    await self._sftp.send(words.WRITE, text(self.handle), offset.to_bytes(8), data=data)
                    offset, waiting = offset + len(data), waiting + 1
                    if waiting == DEEP:
                        waiting -= 1
                        await self._sftp.answer(self._path)
            while waiting:
                waiting -= 1
                await self._sftp.answer(self._path)
        except asyncio.CancelledError:
            raise  # there is no time: the connection is not used again
        except BaseException:
            for _ in range(waiting):
                with contextlib.suppress(OSError):
                    await self._sftp.answer(self._path)
            raise

    async def _ask_for(self, offset: int, size: int) -> None:
        await self._sftp.send(words.READ, text(self.handle), offset.to_bytes(8), number(size))

    async def _got(self) -> memoryview:
        try:
            return (await self._sftp.answer(self._path)).data()
        except EOFError:
            return memoryview(b"")
