"""The guests of this member: their sockets, and who of them listens to what changes."""

import asyncio
import contextvars
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lxdpy.daemon.context import Daemon
from lxdpy.host import guest_socket
from lxdpy.host.devices.driver import Attachment, Mount
from lxdpy.resources.guest import api, limits
from lxdpy.resources.guest.limits import Pace
from lxdpy.resources.guest.listeners import Listeners, told
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.spec import idmap_of, is_on

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

log = logging.getLogger(__name__)

TARGET = "/dev/lxd"  # inside
SWITCH = "security.devlxd"

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connections(web.Server):
    """Those of one kind of peer of a guest, at most so many."""

    def __init__(self, answer: Answer, most: int) -> None:
        line = limits.LINE
        super().__init__(
            answer, access_log=None, max_line_size=line, max_field_size=line, read_bufsize=limits.BODY
        )
        self.free = asyncio.Semaphore(most)

    def connection_lost(self, handler: "RequestHandler", exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.free.release()


class Guest:
    """One running container's end of the API."""

    def __init__(self, daemon: Daemon, row: Instance, root: int) -> None:
        self.daemon = daemon
        self.key = row.key
        self.uuid = row.uuid
        self.root = root  # the host's uid of its root
        self.listeners = Listeners()
        self.ready_by = 0  # pid of the first process since whose start it has said that it is ready
        self.reports = Pace(limits.REPORTS, limits.REPORTS_AT_ONCE)
        self._requests = Pace(limits.REQUESTS, limits.BURST)
        self._roots = Connections(self._answer, limits.CONNECTIONS)
        self._others = Connections(api.refuse, limits.STRANGERS)
        self._accepting: asyncio.Task[object] | None = None
        self._ended = False

    def begin(self, sock: socket.socket) -> None:
        """Not on behalf of who started the container: what the guest asks is asked by nobody else."""
        contextvars.Context().run(self.daemon.spawn, self._serve(sock), f"guest API of {self.key}")

    async def end(self) -> None:
        self._ended = True
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        self.listeners.close()
        for connections in (self._roots, self._others):
            for one in connections.connections:
                if one.transport is not None:
                    one.transport.abort()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._requests.take()
        return await api.answer(self, request)

    async def _serve(self, sock: socket.socket) -> None:
        self._accepting = asyncio.current_task()
        with sock:
            while not self._ended:
                try:
                    await self._accept(sock)
                except OSError as failure:
                    log.warning("guest API of %s: %s", self.key, failure.strerror)
                    await asyncio.sleep(limits.AFTER_FAILURE)

    async def _accept(self, sock: socket.socket) -> None:
        """One connection, at its pace, and none while it has as many as it may."""
        loop = asyncio.get_running_loop()
        async with self._roots.free:
            connection, _ = await loop.sock_accept(sock)
        await self._requests.take()
        if guest_socket.uid_of_peer(connection) == self.root:
            await self._open(connection, self._roots)
        elif self._others.free.locked():
            connection.close()
        else:
            transport = await self._open(connection, self._others)
            loop.call_later(limits.STRANGER_FOR, transport.abort)

    async def _open(self, connection: socket.socket, kind: Connections) -> asyncio.Transport:
        await kind.free.acquire()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(kind, connection)
        return transport


class Guests:
    """By volume."""

    def __init__(self) -> None:
        self._guests: dict[str, Guest] = {}
        self.daemon: Daemon  # set by the daemon's main, once there is one

    async def open(self, row: Instance, has: Expanded) -> Attachment:
        """Serve a container that is started, or runs and `has` that config; what is to be mounted into it.

        Idempotent. Without the API nothing is.
        """
        folder = guest_socket.folder_of(self.daemon.root, row.volume)
        if not is_on(has[0], SWITCH):
            await self.close(row.volume)
            return Attachment()
        idmap = idmap_of(row, has[0])
        root = idmap.host(0) if idmap else 0
        known = self._guests.get(row.volume)
        if known is None or (known.uuid, known.root) != (row.uuid, root):
            await self._forget(row.volume)
            sock = await asyncio.to_thread(_listen, self.daemon.root, folder)
            guest = self._guests[row.volume] = Guest(self.daemon, row, root)
            guest.begin(sock)
        return Attachment(mounts=(Mount(source=str(folder), target=TARGET, readonly=True),))

    async def close(self, volume: str) -> None:
        """Of a container that has ended, or is to have no API. Idempotent."""
        await self._forget(volume)
        folder = guest_socket.folder_of(self.daemon.root, volume)
        await asyncio.to_thread(guest_socket.remove, folder)

    async def _forget(self, volume: str) -> None:
        if guest := self._guests.pop(volume, None):
            await guest.end()

    async def follow(self, row: Instance, had: Expanded, wanted: Expanded) -> None:
        """Of a running container whose config changes: it gets the API, or loses it."""
        if is_on(had[0], SWITCH) == is_on(wanted[0], SWITCH):
            return
        if not is_on(wanted[0], SWITCH):
            await self.daemon.runtime.eject(row.volume, TARGET)
            await self.close(row.volume)
            return
        for mount in (await self.open(row, wanted)).mounts:
            folder = guest_socket.folder_of(self.daemon.root, row.volume)
            await self.daemon.runtime.inject(row.volume, folder, mount.target, readonly=True)

    def is_ready(self, volume: str, init: int) -> bool:
        """Whether it has said so since it was started, or rebooted, with that first process."""
        guest = self._guests.get(volume)
        return guest is not None and guest.ready_by == init

    def changed(self, row: Instance, had: Expanded, has: Expanded) -> None:
        """Tell who listens inside."""
        guest = self._guests.get(row.volume)
        if guest is not None and guest.listeners:
            for kind, event in told(had, has):
                guest.listeners.tell(kind, event)

    def tell(self, row: Instance, kind: str, content: dict[str, Any]) -> None:
        """What changes nothing of it, to those inside who listen."""
        if guest := self._guests.get(row.volume):
            guest.listeners.tell(kind, content)

    async def stop(self) -> None:
        """The daemon ends; the folders stay, as the containers do."""
        for volume in [*self._guests]:
            await self._forget(volume)


def _listen(lxd_dir: Path, folder: Path) -> socket.socket:
    guest_socket.set_apart(lxd_dir)
    return guest_socket.listen(folder)
