"""What is told inside of what changes: `/1.0/events` of the guest API."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Exhausted, Invalid
from lxdpy.resources.guest import limits
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.patience import is_there, while_true

TYPES = ("config", "device", "gpu")  # gpu: our own, that a lease is about to end
SHOWN = ("user.", "cloud-init.")  # the keys that are the guest's to know
PING_EVERY = 10.0  # seconds


def told(had: Expanded, has: Expanded) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and content of the events of a change, as LXD has them."""
    for key in sorted({*had[0], *has[0]}):
        old, new = had[0].get(key, ""), has[0].get(key, "")
        if key.startswith(SHOWN) and old != new:
            yield "config", {"key": key, "old_value": old, "value": new}
    for name in sorted({*had[1], *has[1]}):
        before, after = had[1].get(name), has[1].get(name)
        if before != after:
            action = "added" if before is None else "removed" if after is None else "updated"
            yield "device", {"action": action, "name": name, "config": after or before}


class Listener:
    """One of them. Nothing is told any more once `queue` gave None."""

    def __init__(self, types: frozenset[str]) -> None:
        self.types = types
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(limits.WAITING)

    async def events(self) -> AsyncIterator[str]:
        while (event := await self.queue.get()) is not None:
            yield event


class Listeners:
    """All of one guest."""

    def __init__(self) -> None:
        self._all: set[Listener] = set()

    def __bool__(self) -> bool:
        return bool(self._all)

    def tell(self, kind: str, content: dict[str, Any]) -> None:
        """Never waits: who takes nothing is told no more."""
        event = {"type": kind, "timestamp": rfc3339(time.time()), "metadata": content}
        text = msgspec.json.encode(event).decode()
        for listener in [*self._all]:
            if kind in listener.types:
                self._put(listener, text)

    def close(self) -> None:
        for listener in [*self._all]:
            self._put(listener, None)

    def _put(self, listener: Listener, text: str | None) -> None:
        if listener.queue.full():
            listener.queue.get_nowait()
            text = None
        if text is None:
            self._all.discard(listener)
        listener.queue.put_nowait(text)

    @contextmanager
    def listening(self, types: frozenset[str]) -> Iterator[Listener]:
        """Raises Exhausted when there are as many as may be."""
        if len(self._all) >= limits.LISTENERS:
            raise Exhausted(f"Only {limits.LISTENERS} may listen at once")
        listener = Listener(types)
        self._all.add(listener)
        try:
            yield listener
        finally:
            self._all.discard(listener)


def types_of(text: str) -> frozenset[str]:
    """Of `?type=`; without it all. Raises Invalid."""
    asked = frozenset(text.split(",")) if text else frozenset(TYPES)
    if unknown := sorted(asked - set(TYPES)):
        raise Invalid(f'"{unknown[0]}" isn\'t a supported event type')
    return asked


async def stream(listeners: Listeners, request: web.BaseRequest) -> web.StreamResponse:
    """By websocket, or as lines of JSON."""
    types = types_of(request.query.get("type", ""))
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _by_websocket(listeners, types, request)
    reply = web.StreamResponse(headers={"Content-Type": "application/json"})
    with listeners.listening(types) as listener, suppress(TimeoutError, ConnectionError):
        await reply.prepare(request)
        async with while_true(lambda: is_there(request)):
            async for event in listener.events():
                async with asyncio.timeout(limits.STALLED_AFTER):
                    await reply.write(f"{event}\n".encode())
            await reply.write_eof()
    return reply


async def _by_websocket(
    listeners: Listeners, types: frozenset[str], request: web.BaseRequest
) -> web.StreamResponse:
    socket = web.WebSocketResponse(heartbeat=PING_EVERY, max_msg_size=limits.BODY, compress=False)
    if not socket.can_prepare(request):
        raise Invalid("Not a websocket handshake")
    with listeners.listening(types) as listener:
        await socket.prepare(request)
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(_send(socket, listener))
                async for _ in socket:
                    pass  # nothing that a guest could say
                sending.cancel()
        except* (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
    return socket


async def _send(socket: web.WebSocketResponse, listener: Listener) -> None:
    async for event in listener.events():
        async with asyncio.timeout(limits.STALLED_AFTER):
            await socket.send_str(event)
    await socket.close()
