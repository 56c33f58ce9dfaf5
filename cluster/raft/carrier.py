"""Carrier: links to all members over mutual TLS, on the Raft thread's loop.

Trust is asked for anew with each connection: a member is reachable as soon as the state knows it, and not
any more once the state does not. Nobody is believed about who they are; the certificate says it.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from cluster.errors import Error
from cluster.raft.link import Incoming, Outgoing, frame
from cluster.raft.messages import Append, Message

log = logging.getLogger(__name__)

ALPN = "raft/1"
DIAL_TIMEOUT = 3.0  # seconds, TLS handshake included
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts; a restarted member is back in one
SLOW = 16 << 20  # bytes waiting on a link: no further entries, the follower will ask for them again
GOSSIP_LIMIT = 256 << 10  # bytes waiting on a link: no gossip
HANDSHAKES = 64  # at a time; beyond it the oldest is given up, as a member needs milliseconds


class PeerContexts(Protocol):
    """Where trust comes from. Called on the Raft thread; must not block."""

    def server(self) -> ssl.SSLContext:
        """TLS 1.3, client certificates required and checked against the members'."""
        ...

    def client(self, member_id: str) -> ssl.SSLContext:
        """Accepts that member's certificate only. Raises Error for a member it does not know."""
        ...

    def member_of(self, der: bytes) -> str | None:
        """The member with that certificate."""
        ...

    def was_removed(self, der: bytes, member: str) -> bool:
        """Whether this member, with that certificate, was removed. It may shake hands, to be told so."""
        ...


class Events(Protocol):
    """Who is told what happens on the links."""

    def receive(self, member: str, message: Message) -> None: ...
    def link_up(self, member: str) -> None: ...
    def link_down(self, member: str) -> None: ...
    def dismissed(self, by: str) -> None: ...


class Carrier:
    def __init__(
        self,
        cluster_id: str,
        me: str,
        contexts: PeerContexts,
        addresses: Callable[[], Mapping[str, str]],
        events: Events,
    ) -> None:
        self.cluster_id = cluster_id
        self.me = me
        self._contexts = contexts
        self._addresses = addresses
        self._events = events
        self._tasks: asyncio.TaskGroup
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._retry: dict[str, asyncio.Event] = {}
        self._out: dict[str, Outgoing] = {}
        self._in: dict[str, Incoming] = {}
        self._accepted: set[Incoming] = set()  # greeted or not
        self._handshakes: dict[asyncio.Task[None], None] = {}  # oldest first
        self._collected: dict[str, list[bytes]] = {}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.addresses_changed()

    # Dialling

    def addresses_changed(self) -> None:
        """Dial new members, stop dialling gone ones; retry at once where a dial is waiting. Links end whose
        other end has shown a certificate that is not its own any more."""
        wanted = set(self._addresses()) - {self.me}
        for member in wanted - self._dialling.keys():
            self._retry[member] = asyncio.Event()
            self._dialling[member] = self._tasks.create_task(self._keep_dialling(member))
        for member in self._dialling.keys() - wanted:
            self.drop(member)
        links: list[Incoming | Outgoing] = [*self._out.values(), *self._in.values()]
        for link in links:
            if not link.is_trusted():
                link.abort()
        for event in self._retry.values():
            event.set()

    def drop(self, member: str) -> None:
        """Close all links with a member that was removed, and forget it until it has an address again."""
        self._retry.pop(member, None)
        if member in self._dialling:
            self._dialling.pop(member).cancel()
        for link in (self._out.get(member), self._in.get(member)):
            if link is not None:
                link.abort()

    async def _keep_dialling(self, member: str) -> None:
        pause = FIRST_PAUSE
        retry = self._retry[member]
        while True:
            retry.clear()
            address = self._addresses().get(member)
            if address is not None and await self._dial(member, address):
                pause = FIRST_PAUSE
            try:
                async with asyncio.timeout(pause):
                    await retry.wait()
            except TimeoutError:
                pause = min(pause * 1.6, LONGEST_PAUSE)

    async def _dial(self, member: str, address: str) -> bool:
        """Connect, and return when the link is gone. False: it never was up."""
        host, _, port = address.rpartition(":")
        link = Outgoing(self, member)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await asyncio.get_running_loop().create_connection(
                    lambda: link, host.strip("[]"), int(port), ssl=self._contexts.client(member)
                )
        except (OSError, TimeoutError, ValueError, Error) as error:
            log.debug("dialling %s at %s: %s", member, address, error)
            return False
        try:
            await link.closed
        finally:
            link.abort()
        return link.welcomed

    # Accepting

    def adopt(self, connection: socket.socket) -> None:
        """A connection from the listener that offered `raft/1`, nothing read from it yet."""
        if len(self._handshakes) >= HANDSHAKES:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        task = self._tasks.create_task(self._accept(connection))
        self._handshakes[task] = None
        task.add_done_callback(partial(self._shaken, connection))

    async def _accept(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Incoming(self),
                connection,
                ssl=self._contexts.server(),
                ssl_handshake_timeout=DIAL_TIMEOUT,
            )
        except (OSError, Error) as error:
            log.debug("raft link refused: %s", error)
            connection.close()

    def _shaken(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        if task.cancelled():  # perhaps before its first step
            connection.close()

    # Links report

    def member_of(self, transport: asyncio.BaseTransport) -> str | None:
        certificate = _certificate(transport)
        return None if certificate is None else self._contexts.member_of(certificate)

    def was_removed(self, transport: asyncio.BaseTransport, member: str) -> bool:
        certificate = _certificate(transport)
        return certificate is not None and self._contexts.was_removed(certificate, member)

    def dismissed(self, by: str) -> None:
        self._events.dismissed(by)

    def opened(self, link: Incoming) -> None:
        self._accepted.add(link)

    def accepted(self, link: Incoming) -> None:
        """The newest connection counts: an older one is a leftover of a restart."""
        older = self._in.get(link.member)
        self._in[link.member] = link
        if older is not None:
            older.abort()

    def up(self, link: Outgoing) -> None:
        self._out[link.member] = link
        self._events.link_up(link.member)

    def down(self, link: Incoming | Outgoing) -> None:
        if isinstance(link, Incoming):
            self._accepted.discard(link)
            if self._in.get(link.member) is link:
                del self._in[link.member]
        elif self._out.get(link.member) is link:
            del self._out[link.member]
            self._collected.pop(link.member, None)
            self._events.link_down(link.member)

    def receive(self, member: str, message: Message) -> None:
        self._events.receive(member, message)

    # Sending

    def send(self, member: str, message: Message) -> None:
        """Collect; `write_out` writes. To a member without a link: nothing."""
        link = self._out.get(member)
        if link is None:
            return
        if isinstance(message, Append) and message.entries and link.backlog > SLOW:
            return
        self._collected.setdefault(member, []).append(frame(message))

    def write_out(self) -> None:
        collected, self._collected = self._collected, {}
        for member, frames in collected.items():
            link = self._out.get(member)
            if link is not None:
                link.write(b"".join(frames))

    def gossip(self, data: bytes, to: str | None) -> None:
        """Send a frame at once to one member or to all, dropped where a link is slow."""
        links = list(self._out.values()) if to is None else [self._out[to]] if to in self._out else []
        for link in links:
            if link.backlog < GOSSIP_LIMIT:
                link.write(data)

    def close(self) -> None:
        for task in self._dialling.values():
            task.cancel()
        for outgoing in self._out.values():
            outgoing.abort()
        for incoming in self._accepted:
            incoming.abort()


def _certificate(transport: asyncio.BaseTransport) -> bytes | None:
    """The peer's, which it proved to have."""
    secured: Any = transport.get_extra_info("ssl_object")
    found: bytes | None = secured.getpeercert(binary_form=True)
    return found
