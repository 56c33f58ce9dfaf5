"""Websockets of operations (exec, console): secrets, waiting for all of them, and pumping them to and from
fds.

What the stock client does, seen in traces: it opens one socket for each of `metadata.fds`; data are binary
frames; an empty text frame, or a close, ends its stdin; ours ends its stdout and stderr in the same way.
"""

import asyncio
import secrets as random
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import msgspec
from aiohttp import WSMsgType, web

from cluster.errors import Forbidden, Invalid, Unavailable
from lxdpy.rest import crowd
from lxdpy.rest.descriptor import Descriptor
from lxdpy.rest.patience import notice_lost_host

CONTROL = "control"
CONNECT_WITHIN = 10.0  # seconds for a client to open all sockets of its operation
CLOSE_WITHIN = 2.0  # seconds for a client to answer a close frame; most are gone by then
READ_WITHIN = 86_400.0  # seconds likewise, behind output: somebody may be reading that page by page
PING_EVERY = 10.0  # seconds; unanswered by the host, not the program, they make a connection fail
PART = 1 << 16  # bytes read from an fd at a time: what a pipe holds
TEXT, FINAL = 0x01, 0x80
END_OF_FILE = b"\x04"  # to a terminal, as they are set at first


class Control(msgspec.Struct, frozen=True):
    """A message of the control socket."""

    command: str
    args: dict[str, str] | None = None
    signal: int = 0


def size_of(message: Control) -> tuple[int, int] | None:
    """Rows and columns of a "window-resize"; None if it has none that a terminal can have."""
    texts = [(message.args or {}).get(name, "") for name in ("height", "width")]
    if all(text.isdecimal() and 0 < int(text) < 1 << 16 for text in texts):
        return int(texts[0]), int(texts[1])
    return None


def check_size(rows: int, columns: int) -> tuple[int, int]:
    """Of a terminal as a request has it; 0: unknown. Raises Invalid."""
    for name, value in (("height", rows), ("width", columns)):
        if not 0 <= value < 1 << 16:
            raise Invalid(f"A terminal cannot have a {name} of {value}: from 0 to 65535", key=name)
    return rows, columns


class Sink(Protocol):
    """What a client's bytes go into: a Descriptor, or what is like one."""

    async def write(self, data: bytes) -> None: ...


class Sockets:
    """The sockets of one operation, by name: "control" and fd numbers. Each is opened once, by its secret."""

    def __init__(
        self, names: Iterable[str], *, outputs: Iterable[str] = (), limit: int = 0, flat: bool = False
    ) -> None:
        """`outputs`: those that the client reads to their end, however slowly; `limit`: bytes of a message, 0
        for any; `flat`: how the secrets stand in the metadata.
        """
        self.fds = {name: random.token_hex(32) for name in names}
        self.metadata: dict[str, object] = {**self.fds} if flat else {"fds": self.fds}
        self._limit, self._outputs = limit, frozenset(outputs)
        self._unused = {secret: name for name, secret in self.fds.items()}
        self._open: dict[str, web.WebSocketResponse] = {}
        self._closing: dict[str, asyncio.Task[bool]] = {}
        self._arrived = asyncio.Condition()
        self._over = asyncio.Event()

    def knows(self, secret: str) -> bool:
        """Whether the secret is one of this operation's, used or not."""
        return any(random.compare_digest(secret.encode(), known.encode()) for known in self.fds.values())

    def _named(self, secret: str) -> str | None:
        """The socket that the secret still opens; all are compared, in constant time."""
        same = [
            name
            for known, name in self._unused.items()
            if random.compare_digest(secret.encode(), known.encode())
        ]
        return same[0] if same else None

    async def connect(self, request: web.BaseRequest, secret: str) -> web.StreamResponse:
        """Serve one socket until the operation closes it. Raises Forbidden for a wrong or used secret."""
        name = self._named(secret)
        if name is None:
            raise Forbidden("not authorized")
        secret = self.fds[name]
        del self._unused[secret]
        if request.headers.get("Upgrade", "").lower() != "websocket":
            self._unused[secret] = name
            raise Invalid("This URL is for websockets")
        patience = READ_WITHIN if name in self._outputs else CLOSE_WITHIN
        socket = web.WebSocketResponse(max_msg_size=self._limit, compress=False, timeout=patience)
        await socket.prepare(request)
        notice_lost_host(request)
        self._open[name] = socket
        with crowd.within(request.transport):
            async with self._arrived:
                self._arrived.notify_all()
            await self._keep(socket)
            await self._closed(name)
        return socket

    def _closed(self, name: str) -> "asyncio.Task[bool]":
        """Have it closed, by whoever is the first to ask for that."""
        if name not in self._closing:
            self._closing[name] = asyncio.create_task(self._open[name].close())
        return self._closing[name]

    async def _keep(self, socket: web.WebSocketResponse) -> None:
        """Until the operation is over. Pongs are not waited for: clients answer pings when they read, and the
        stock one reads neither its control socket nor one of stdin.
        """
        while not self._over.is_set():
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(PING_EVERY):
                    await self._over.wait()
                    return
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(PING_EVERY):
                    await socket.ping()

    async def wait(self, timeout: float = CONNECT_WITHIN) -> None:
        """Until all but the control socket are open; clients may leave that one out. Raises Unavailable."""
        needed = self.fds.keys() - {CONTROL}
        try:
            async with asyncio.timeout(timeout), self._arrived:
                await self._arrived.wait_for(lambda: needed <= self._open.keys())
        except TimeoutError:
            raise Unavailable("Timed out waiting for the client to connect its websockets") from None

    async def get(self, name: str) -> web.WebSocketResponse:
        """Waits until it is open, or for ever."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: name in self._open)
        return self._open[name]

    async def taken(self, names: Collection[str]) -> None:
        """Until the client closed these, as it does once it has read them to their end; or CLOSE_WITHIN."""
        for name in names:
            await self.get(name)
        await asyncio.wait([self._closed(name) for name in names], timeout=CLOSE_WITHIN)

    def close(self) -> None:
        """End all sockets; those that come later are refused."""
        self._unused.clear()
        self._over.set()

    async def controls(self) -> AsyncIterator[Control]:
        """Messages of the control socket, until it closes. What is no message is left out."""
        async for message in await self.get(CONTROL):
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and message.data:
                try:
                    yield msgspec.json.decode(message.data, type=Control)
                except msgspec.MsgspecError:
                    continue


async def to_fd(socket: web.WebSocketResponse, sink: Sink) -> None:
    """What the client sends, into `sink`, until the client ends its stream or the reader is gone."""
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT and not message.data:
                return
            if message.type is WSMsgType.TEXT:
                await sink.write(message.data.encode())
            elif message.type is WSMsgType.BINARY:
                await sink.write(message.data)
    except OSError:
        return  # EPIPE, EIO: the program closed its stdin, or has ended


async def from_fd(source: Descriptor, socket: web.WebSocketResponse) -> None:
    """What `source` has, to the client, until its end; then the empty text frame that says so.

    `source` is closed when the client is gone, so that who writes to it does not wait for a reader for ever.
    """
    try:
        while data := await source.read(PART):
            await socket.send_bytes(data)
        await socket.send_str("")
    except ConnectionError:
        source.close()


async def terminal(sockets: Sockets, master: Descriptor) -> None:
    """Join socket "0" with a pty until its end or `master.finish()`; a client that goes away hangs it up, and
    one that ends its stdin types ^D, behind a half line once more.
    """
    socket = await sockets.get("0")
    async with asyncio.TaskGroup() as both:
        inward = both.create_task(_hang_up_after(socket, master))
        await from_fd(master, socket)
        inward.cancel()


async def _hang_up_after(socket: web.WebSocketResponse, master: Descriptor) -> None:
    await to_fd(socket, master)
    if socket.closed:
        master.close()
    else:
        with suppress(OSError):
            await master.write(END_OF_FILE * 2)


async def pipes(sockets: Sockets, stdin: Descriptor, outputs: Mapping[str, Descriptor]) -> None:
    """Join socket "0" with the program's stdin, and "1" and "2" with what it writes, until the end of these
    or their `finish()`.
    """
    first = await sockets.get("0")
    async with asyncio.TaskGroup() as all_of_them:
        inward = all_of_them.create_task(_close_after(first, stdin))
        async with asyncio.TaskGroup() as outward:
            for name, source in outputs.items():
                outward.create_task(from_fd(source, await sockets.get(name)))
        inward.cancel()


async def _close_after(socket: web.WebSocketResponse, stdin: Descriptor) -> None:
    try:
        await to_fd(socket, stdin)
    finally:
        stdin.close()


def text_frame(text: bytes) -> bytes:
    """A whole websocket message from a server, RFC 6455 section 5.2: made once for many listeners."""
    size = len(text)
    if size < 126:
        return bytes((FINAL | TEXT, size)) + text
    if size < 1 << 16:
        return bytes((FINAL | TEXT, 126)) + size.to_bytes(2) + text
    return bytes((FINAL | TEXT, 127)) + size.to_bytes(8) + text
