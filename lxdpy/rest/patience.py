"""Waiting for as long as it makes sense: until the client hangs up, or the member that works is lost."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from lxdpy.rest import auth

HOST_SILENT = 30  # seconds
LOOK_EVERY = 0.5  # seconds; how much longer than needed a wait may last


@asynccontextmanager
async def while_true(condition: Callable[[], bool]) -> AsyncIterator[None]:
    """Run the block; TimeoutError in it soon after `condition` is false, which is looked at now and then."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            if condition():
                timers.append(loop.call_later(LOOK_EVERY, look))
                timers.pop(0)
            else:
                limit.reschedule(loop.time())

        timers = [loop.call_later(LOOK_EVERY, look)]
        try:
            yield
        finally:
            timers[0].cancel()


def notice_lost_host(request: web.BaseRequest) -> None:
    """Have a connection that lives long fail when the client's host is gone; as LXD, within half a minute."""
    if request.transport is not None:
        passed_on = auth.FORWARDED_PROTOCOL in request.headers
        notice_silence(request.transport.get_extra_info("socket"), of_reader=not passed_on)


def notice_silence(sock: socket.socket | None, *, of_reader: bool = True) -> None:
    """The same for a socket; None, of a connection that is lost already, is fine.

    `of_reader`: also if it takes nothing of what is sent for so long, which to the kernel is the same. Who
    passes it on to another is not to be cut off because that one reads it page by page.
    """
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, HOST_SILENT // 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, HOST_SILENT // 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        if of_reader:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, HOST_SILENT * 1000)


def is_there(request: web.BaseRequest) -> bool:
    """Whether the client still holds the connection."""
    return request.transport is not None and not request.transport.is_closing()
