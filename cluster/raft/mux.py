"""One port for the API and for Raft: a connection's first words are looked at, not taken, and it goes on.

A TLS client names the protocols it speaks (ALPN, RFC 7301) in its first message. Who offers `raft/1` is
handed to Raft's thread, everybody else to the API; both then find the connection as if nobody had read from
it. What is decided here is only whose connection it is: either side authenticates for itself.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

RAFT = b"raft/1"
PEEK = 8192  # bytes; a ClientHello with post-quantum key shares is below 2 KiB
UNDECIDED = 5.0  # seconds a client has to say what it wants
HALF_OPEN = 512  # connections that have not said it yet; beyond it the oldest is dropped
RETRY_EVERY = 0.005  # seconds between looks at a message that arrives in pieces
OUT_OF_FILES = 0.5  # seconds to wait before accepting again when there are no descriptors left

HANDSHAKE = 22  # content type of a TLS record
CLIENT_HELLO = 1  # type of a handshake message
ALPN = 16  # extension

log = logging.getLogger(__name__)


def alpn_of(data: bytes) -> tuple[bytes, ...] | None:
    """The protocols a TLS ClientHello offers, none when it is something else; None when more must come first.

    Reads any bytes at all without raising. A message may be cut into several records.
    """
    if data[:1] and data[0] != HANDSHAKE:
        return ()
    message, more = _handshake_bytes(data)
    if message[:1] and message[0] != CLIENT_HELLO:
        return ()
    end = 4 + int.from_bytes(message[1:4], "big")
    if len(message) < 4 or len(message) < end:
        return None if more else ()
    return _offered(_extensions(_Reader(message[4:end])))


def _handshake_bytes(data: bytes) -> tuple[bytes, bool]:
    """What the handshake records hold, and whether more of it may come."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if data[at] != HANDSHAKE:
            return b"".join(parts), False
        if at + 5 > len(data):
            break
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if not size:
            return b"".join(parts), False  # forbidden, RFC 8446 5.1
        parts.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    return b"".join(parts), True


class _Reader:
    """Length-prefixed fields; what is beyond the end reads as empty."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def field(self, width: int) -> bytes:
        return self.take(self.number(width))

    def done(self) -> bool:
        return self.at >= len(self.data)


def _extensions(hello: _Reader) -> _Reader:
    hello.take(2 + 32)  # version, random
    hello.field(1)  # session id
    hello.field(2)  # cipher suites
    hello.field(1)  # compression methods
    return _Reader(hello.field(2))


def _offered(extensions: _Reader) -> tuple[bytes, ...]:
    while not extensions.done():
        kind = extensions.number(2)
        body = extensions.field(2)
        if kind == ALPN:
            names = _Reader(_Reader(body).field(2))
            offered = []
            while not names.done():
                offered.append(names.field(1))
            return tuple(offered)
    return ()


class Mux:
    """Accepts connections and hands each, non-blocking and unread, to one of two owners.

    `on_raft` must not block: it passes the socket to its thread. `on_http` is awaited in a task of its own.
    Neither may raise; the receiver owns the socket.
    """

    def __init__(
        self,
        on_raft: Callable[[socket.socket], None],
        on_http: Callable[[socket.socket], Awaitable[None]],
        undecided: float = UNDECIDED,
        half_open: int = HALF_OPEN,
    ) -> None:
        self._on_raft = on_raft
        self._on_http = on_http
        self._undecided = undecided
        self._half_open = half_open
        self._peeking: dict[socket.socket, asyncio.Timeout] = {}  # oldest first

    async def serve(self, listening: socket.socket) -> None:
        """Until cancelled. The listening socket (non-blocking) stays the caller's."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listening)
                except ConnectionError:
                    continue  # it left before it was accepted
                except OSError as error:
                    log.warning("Cannot accept connections on %s: %s", listening.getsockname(), error)
                    await asyncio.sleep(OUT_OF_FILES)
                    continue
                tasks.create_task(self._sort(connection))

    async def _sort(self, connection: socket.socket) -> None:
        try:
            offered = await self._look(connection)
        except BaseException:
            connection.close()
            raise
        if offered is None:
            connection.close()
        elif RAFT in offered:
            self._on_raft(connection)
        else:
            await self._on_http(connection)

    async def _look(self, connection: socket.socket) -> tuple[bytes, ...] | None:
        """None when the client left, or did not say in time."""
        self._make_room()
        try:
            async with asyncio.timeout(self._undecided) as limit:
                self._peeking[connection] = limit
                return await _peek(connection)
        except (OSError, TimeoutError) as error:
            log.debug("Connection dropped before it said what it wants: %r", error)
            return None
        finally:
            self._peeking.pop(connection, None)

    def _make_room(self) -> None:
        """Drop the oldest: who speaks at once is never kept waiting by those who do not."""
        if len(self._peeking) >= self._half_open:
            oldest = next(iter(self._peeking))
            limit = self._peeking.pop(oldest)
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())


async def _peek(connection: socket.socket) -> tuple[bytes, ...] | None:
    seen = 0
    while True:
        await _readable(connection)
        data = connection.recv(PEEK, socket.MSG_PEEK)
        if not data:
            return None
        offered = alpn_of(data)
        if offered is None and len(data) >= PEEK:
            return ()  # nothing of ours is that long: TLS itself may judge
        if offered is not None:
            return offered
        if len(data) == seen:
            await asyncio.sleep(RETRY_EVERY)  # unread bytes keep the socket readable
        seen = len(data)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)
