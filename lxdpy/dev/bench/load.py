"""The one client of all peers, and ways to measure with it: keep-alive HTTP/1.1 over a unix socket.

It reads no more of an answer than it must, so that little of a figure is its own: about 60 µs a request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

PATIENCE = 120.0  # seconds for one answer
LIMIT = 1 << 26  # bytes; a list of many instances is one line of JSON

Work = Callable[[int], Awaitable[object]]
"""One unit of load, given its number."""


class Refused(Exception):
    """The answer was an error, or the operation failed."""


class Connection:
    """One at a time; opened when first used, and again if the other side closed it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError or EOFError if the connection breaks: it is not asked again."""
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_unix_connection(str(self._path), limit=LIMIT)
        reader, writer = self._streams
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head[9:12])
            return status, await _body(reader, head)
        except BaseException:
            self.close()  # half an answer may be on its way
            raise

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line[15:]))
    if b"transfer-encoding: chunked" not in head:
        return b""
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(pieces)


class Client:
    """As many connections as are in use at once; they are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            self._idle.pop().close()

    async def raw(self, request: bytes) -> bytes:
        """The body of a good answer. Raises Refused with its text otherwise."""
        connection = self._idle.pop() if self._idle else Connection(self._path)
        try:
            async with asyncio.timeout(PATIENCE):
                status, body = await connection.send(request)
        finally:
            self._idle.append(connection)
        if status >= 400:
            raise Refused(f"{status}: {body[:300].decode(errors='replace')}")
        return body

    async def ask(self, method: str, url: str, body: object = None) -> Any:
        """The answer's metadata."""
        data = b"" if body is None else msgspec.json.encode(body)
        return msgspec.json.decode(await self.raw(request(method, url, data)))["metadata"]

    async def done(self, method: str, url: str, body: object = None, **headers: str) -> Any:
        """As `ask`, but waits for the operation, if that is what is answered: its own metadata then."""
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        answer = msgspec.json.decode(await self.raw(request(method, url, data, **headers)))
        if answer["type"] != "async":
            return answer["metadata"]
        if answer["metadata"]["class"] == "token":
            return answer["metadata"]["metadata"]
        path = answer["operation"].partition("?")[0]
        ended = await self.ask("GET", f"{path}/wait")
        if ended["status_code"] != 200:
            raise Refused(f"{method} {url}: {ended['err']}")
        return ended["metadata"]


def request(method: str, url: str, body: bytes = b"", **headers: str) -> bytes:
    """Header names with `_` for `-`."""
    lines = [f"{method} {url} HTTP/1.1", "Host: unix.socket", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def timed(work: Awaitable[object]) -> float:
    """Seconds it took."""
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def one_by_one(work: Work, numbers: Sequence[int]) -> list[float]:
    """Milliseconds of each."""
    return [1000 * await timed(work(number)) for number in numbers]


async def rate(work: Work, numbers: Sequence[int], abreast: int) -> float:
    """How many a second, when so many are under way at any time."""
    waiting = iter(numbers)

    async def worker() -> None:
        for number in waiting:
            await work(number)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(abreast):
                group.create_task(worker())

    return len(numbers) / await timed(all_of_them())
