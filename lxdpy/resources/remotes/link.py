"""The two websockets between source and target, whoever opened them."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from cluster.errors import Conflict, Error, Invalid, Unavailable
from cluster.tls.contexts import pinned_client
from lxdpy.host.run import CommandFailed
from lxdpy.resources.remotes.header import (
    Header,
    Verdict,
    is_verdict,
    read,
    read_verdict,
    write,
    write_verdict,
)
from lxdpy.resources.remotes.model import CONTROL, FILES, Peer
from lxdpy.rest.patience import notice_silence
from lxdpy.rest.websocket import CLOSE_WITHIN, Sockets

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

CALL_WITHIN = 60.0  # seconds until both sockets are open; a target may have to wait for its pool
CONNECT = 10.0  # seconds
LONGEST = 16 << 20  # bytes of a message: of a header with a thousand snapshots 1 MiB
GIVES_REASON = 30.0  # seconds for a target to say why it let go: it clears up before
FAILS_TOO = 1.0  # seconds for this end to say it, when the other has failed first

LOST = "The other server has gone"
CONSEQUENCES = (Unavailable, CommandFailed)  # failures that may be of what the other end met


class Link:
    """`count` hears how many bytes of files have come or gone. One reader and one writer of each socket."""

    def __init__(self, control: Socket, files: Socket, count: Callable[[int], None]) -> None:
        self._control = control
        self._files = files
        self._count = count

    async def offer(self, header: Header) -> None:
        """Raises Unavailable."""
        await _send(self._control.send_bytes(write(header)))

    async def answer(self) -> Header:
        """What the other end offers or answers. Raises Unavailable, Malformed, Conflict with its refusal."""
        data = await self._hear()
        if is_verdict(data):
            raise Conflict(read_verdict(data).message or LOST)
        return read(data)

    async def verdict(self) -> Verdict:
        """What the other end says in the end. Raises Unavailable, Malformed."""
        return read_verdict(await self._hear())

    async def tell(self, verdict: Verdict) -> None:
        """Raises Unavailable."""
        await _send(self._control.send_bytes(write_verdict(verdict)))

    async def read(self) -> bytes:
        """See `rsync.Stream`."""
        while True:
            message = await self._files.receive()
            if message.type is WSMsgType.TEXT:
                return b""
            if message.type is not WSMsgType.BINARY:
                raise Unavailable(LOST)
            if message.data:
                self._count(len(message.data))
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        await _send(self._files.send_bytes(data))
        self._count(len(data))

    async def end(self) -> None:
        await _send(self._files.send_str(""))

    async def close(self) -> None:
        for socket in (self._control, self._files):
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN):
                    await socket.close()

    async def _hear(self) -> bytes:
        message = await self._control.receive()
        if message.type is not WSMsgType.BINARY:
            raise Unavailable(LOST)
        return bytes(message.data)


async def _send(sending: Coroutine[Any, Any, None]) -> None:
    try:
        await sending
    except (ConnectionError, RuntimeError) as gone:
        raise Unavailable(LOST) from gone


@asynccontextmanager
async def awaited(sockets: Sockets, count: Callable[[int], None]) -> AsyncIterator[Link]:
    """Of an operation of ours, once the other end has opened both. Raises Unavailable."""
    try:
        async with asyncio.timeout(CALL_WITHIN):
            control, files = await sockets.get(CONTROL), await sockets.get(FILES)
    except TimeoutError:
        raise Unavailable("Timed out waiting for connections") from None
    link = Link(control, files, count)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def called(peer: Peer, count: Callable[[int], None]) -> AsyncIterator[Link]:
    """To the operation of another server. Raises Unavailable, Invalid for another certificate."""
    context = pinned_client(None, peer.certificate) if peer.certificate else ssl.create_default_context()
    connector = aiohttp.TCPConnector(ssl=context)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
    async with aiohttp.ClientSession(connector=connector, timeout=limits) as session:
        control = await _opened(session, peer, CONTROL)
        link = Link(control, await _opened(session, peer, FILES), count)
        try:
            yield link
        finally:
            await link.close()


async def _opened(session: aiohttp.ClientSession, peer: Peer, name: str) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(CALL_WITHIN):
            socket = await session.ws_connect(
                peer.websocket, params={"secret": peer.secrets[name]}, max_msg_size=LONGEST
            )
    except aiohttp.ClientSSLError as wrong:
        raise Invalid(f"The other server is not the one that was meant: {wrong}") from None
    except aiohttp.WSServerHandshakeError as refused:
        raise Unavailable(f"The other server refused the connection: {refused.status}") from None
    except (aiohttp.ClientError, OSError, TimeoutError) as failed:
        why = str(failed) or "no answer in time"
        raise Unavailable(f"The other server cannot be reached: {why}") from None
    notice_silence(socket.get_extra_info("socket"))
    return socket


async def attended(link: Link, work: Coroutine[Any, Any, None], *, to_the_end: bool) -> None:
    """Do the work that sends or receives files; `to_the_end`: then wait for the other end's verdict.

    Raises the work's Error, or the other end's reason if it gave up.
    """
    async with asyncio.TaskGroup() as both:
        working = both.create_task(_outcome(work))
        hearing = both.create_task(_heard(link))
        await asyncio.wait([working, hearing], return_when=asyncio.FIRST_COMPLETED)
        if hearing.done() and not hearing.result().success:  # as a consequence of ours, perhaps
            await asyncio.wait([working], timeout=FAILS_TOO)
            working.cancel()
        await asyncio.wait([working])
        failure = None if working.cancelled() else working.result()
        if isinstance(failure, CONSEQUENCES) or (failure is None and to_the_end):
            patience = GIVES_REASON if to_the_end else FAILS_TOO  # else both would wait for each other
            await asyncio.wait([hearing], timeout=patience if failure else None)
        hearing.cancel()
    said = Verdict(success=True) if hearing.cancelled() else hearing.result()
    if failure is not None and (said.message in ("", LOST) or not isinstance(failure, CONSEQUENCES)):
        raise failure
    if not said.success:
        met = f" ({failure.message})" if isinstance(failure, CommandFailed) else ""
        raise Conflict(f"{said.message or LOST}{met}")


async def _outcome(work: Coroutine[Any, Any, None]) -> Error | None:
    try:
        await work
    except Error as failure:
        return failure
    return None


async def _heard(link: Link) -> Verdict:
    try:
        return await link.verdict()
    except Error as failure:
        return Verdict(success=False, message=failure.message)


class Progress:
    """How far it is, in LXD's words, as `fs_progress` of an operation."""

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self.name = name
        self._tell = tell
        self._done = 0
        self._began = time.monotonic()

    def __call__(self, size: int) -> None:
        self._done += size
        rate = self._done / (time.monotonic() - self._began + 0.001)
        self._tell(f"{self.name}: {self._done / 1e6:.2f}MB ({rate / 1e6:.2f}MB/s)")
