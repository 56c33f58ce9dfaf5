"""Joining a client's upgraded connection with the owner's: bytes pass as they are, in both directions.

Frames are not looked at, so close codes, pings, fragments and compression are those of the two ends, a frame
costs no masking here, and an upgrade to anything else than a websocket is the same work. When one side is
lost without a close frame, the other side's connection ends without one too, which is what happened.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from cluster.errors import Unavailable
from lxdpy.rest import crowd
from lxdpy.rest.patience import notice_lost_host

MAX_HEAD = 1 << 16  # bytes of the answer's head
MAX_ERROR = 1 << 16  # bytes of the body of an owner's refusal
PART = 1 << 18  # bytes read at a time
MUCH = 1 << 20  # bytes from the client that the owner has not taken: pause reading from the client
PASSED_ON = (
    "upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions",
)  # fmt: skip
SILENT = (
    40.0  # seconds without a byte either way: of a websocket, whose owner pings every 10, one host is dead
)
HEAD_WITHIN = 30.0  # seconds for the owner to accept or refuse; operations wait up to 10 s for their sockets


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Head(msgspec.Struct, frozen=True):
    """Status line and headers of the owner's answer; header names in lower case."""

    status: int
    headers: dict[str, str]


class Far:
    """The connection to the owner, upgraded or refused."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: Head) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head

    async def refusal(self) -> bytes:
        """The body of an answer that is not 101."""
        size = self.head.headers.get("content-length", "0")
        return await self.reader.readexactly(min(int(size), MAX_ERROR))


async def connect(address: tuple[str, int], context: ssl.SSLContext) -> Streams:
    """Raises OSError."""
    host, port = address
    return await asyncio.open_connection(host, port, ssl=context, server_hostname="", limit=PART)


async def upgrade(streams: Streams, path: str, headers: Mapping[str, str]) -> Far:
    """Ask the owner to upgrade. Raises OSError, EOFError or TimeoutError when it does not answer."""
    reader, writer = streams
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(HEAD_WITHIN):
        return Far(reader, writer, parse(await reader.readuntil(b"\r\n\r\n")))


def parse(text: bytes) -> Head:
    """Raises Unavailable if it is not HTTP."""
    first, *lines = text.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise Unavailable(f"Not an HTTP answer: {first[:100]}")
    pairs = (line.partition(":") for line in lines if line)
    return Head(int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def local(request: web.BaseRequest, end: socket.socket, kind: str) -> web.StreamResponse:
    """Make the client's connection one of this `kind`, to who is at the other end of a stream socket here."""
    reader, writer = await asyncio.open_unix_connection(sock=end, limit=PART)
    far = Far(reader, writer, Head(101, {"upgrade": kind, "connection": "Upgrade"}))
    return await splice(request, far, lambda _: False)


async def splice(
    request: web.BaseRequest, far: Far, is_lost: Callable[["Near"], bool] | None = None
) -> web.StreamResponse:
    """Give the client the owner's 101 and pass bytes until either side ends.

    `is_lost` is asked when the owner was silent for SILENT seconds; by default, whether the client was too.
    """
    kept = {name: far.head.headers[name] for name in PASSED_ON if name in far.head.headers}
    near = Near(request, far.writer)
    reply = web.StreamResponse(status=101, headers=kept)
    reply.force_close()
    try:
        await reply.prepare(request)
        request.writer.send_headers()
        notice_lost_host(request)
        request.protocol.keep_alive(False)
        request.protocol.set_parser(near)  # type: ignore[arg-type]  # all it does with it is to feed it
        with crowd.within(request.transport), crowd.within(far.writer.transport):
            async with asyncio.TaskGroup() as both:
                inward = both.create_task(near.pump())
                await _outward(request, far.reader, lambda: is_lost(near) if is_lost else near.is_silent())
                inward.cancel()
    finally:
        far.writer.close()
    return reply


async def _outward(
    request: web.BaseRequest, reader: asyncio.StreamReader, is_lost: Callable[[], bool]
) -> None:
    """From the owner to the client, until one of them is gone."""
    try:
        while data := await _read(reader, is_lost):
            transport = request.transport
            if transport is None or transport.is_closing():
                return
            transport.write(data)
            await request.writer.drain()
    except (ConnectionError, ssl.SSLError):
        return


async def _read(reader: asyncio.StreamReader, is_lost: Callable[[], bool]) -> bytes:
    """What the owner sends next; nothing at its end, or when it is lost."""
    while True:
        try:
            async with asyncio.timeout(SILENT):
                return await reader.read(PART)
        except TimeoutError:
            if is_lost():
                return b""


class Near:
    """The client's side. aiohttp feeds it what the client sends, instead of its own websocket parser."""

    def __init__(self, request: web.BaseRequest, far: asyncio.StreamWriter) -> None:
        self._protocol = request.protocol
        self._far = far
        self._waiting = bytearray()
        self._fed = asyncio.Event()
        self._paused = False
        self._fed_at = time.monotonic()

    def is_silent(self) -> bool:
        """And no slow reader, who has not yet taken what it was sent."""
        transport = self._protocol.transport
        reads = transport is not None and transport.get_write_buffer_size() > 0
        return time.monotonic() - self._fed_at > SILENT and not reads

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Called for each read of the client's socket. Stops reading while the owner is behind."""
        self._waiting += data
        self._fed_at = time.monotonic()
        self._fed.set()
        if len(self._waiting) > MUCH and not self._paused:
            self._paused = True
            self._protocol.pause_reading()
        return self._far.transport.is_closing(), b""

    def feed_eof(self) -> None:
        """The client is gone: the owner's stream ends too, behind its last words, and with it the splice."""
        if not self._far.transport.is_closing():
            self._far.write(bytes(self._waiting))
        self._waiting.clear()
        self._far.close()

    async def pump(self) -> None:
        """From the client to the owner, until cancelled or the owner is gone."""
        try:
            while True:
                await self._fed.wait()
                self._fed.clear()
                data, self._waiting = bytes(self._waiting), bytearray()
                self._far.write(data)
                await self._far.drain()
                if self._paused:
                    self._paused = False
                    self._protocol.resume_reading()
        except (ConnectionError, ssl.SSLError):
            self._far.close()
