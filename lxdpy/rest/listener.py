"""Where the API is reached: the unix socket, and the addresses of `core.https_address`.

On a network address API and Raft share the port (`cluster.raft.mux`). TLS is `cluster.tls.openssl`: clients
may come with any certificate or none; `peer_of` says who is there, and `lxdpy.rest.auth` whether to trust.
"""

import asyncio
import grp
import logging
import os
import socket
import ssl
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from aiohttp import web

from cluster.address import Address, join_address, parse_address
from cluster.errors import Conflict, Invalid
from cluster.raft.mux import Mux
from cluster.tls.certificates import fingerprint_of
from cluster.tls.openssl import Adapter

HANDSHAKE_TIMEOUT = 10.0  # seconds
GOODBYE_TIMEOUT = 5.0  # seconds for the client's close_notify, which many never send
BACKLOG = 1024  # connections the kernel keeps for us; `lxc` makes one for every request
ACCEPTED_AT_ONCE = 8  # before those who are connected are served again; one takes 0.2 ms, its request more
CREDENTIALS = struct.Struct("3i")  # SO_PEERCRED: pid, uid, gid

log = logging.getLogger(__name__)

Server = Callable[[], asyncio.BaseProtocol]  # `AppRunner.server`, an `aiohttp.web.Server`


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, as far as the connection itself can tell."""

    kind: Literal["unix", "tls"]
    address: str = ""  # "host:port"; empty on the unix socket, and when the connection is gone already
    uid: int = -1  # on the unix socket
    pid: int = -1  # there; 0 for a process of a pid namespace we cannot see into
    certificate: bytes = b""  # DER; empty when the client showed none
    fingerprint: str = ""  # of the certificate, SHA-256 in lower-case hex


def peer_of(connection: web.BaseRequest | asyncio.BaseTransport | None) -> Peer:
    """Of a request or a transport. Of a connection that is gone: a TLS peer without certificate."""
    transport = connection.transport if isinstance(connection, web.BaseRequest) else connection
    if transport is None:
        return Peer("tls")
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, _ = CREDENTIALS.unpack(raw)
        return Peer("unix", uid=uid, pid=pid)
    name = transport.get_extra_info("peername")
    address = join_address((name[0].removeprefix("::ffff:"), name[1])) if name else ""
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(True) if tls is not None else None
    if not certificate:
        return Peer("tls", address)
    return Peer("tls", address, certificate=certificate, fingerprint=fingerprint_of(certificate))


def _without_covered(addresses: Iterable[Address]) -> list[Address]:
    """Each once, and none that a wildcard of the same port includes: the kernel would refuse the second."""
    wanted = list(dict.fromkeys(("" if host == "::" else host, port) for host, port in addresses))
    return [
        (host, port)
        for host, port in wanted
        if not (
            (host != "" and ("", port) in wanted)
            or (host not in ("", "0.0.0.0") and ":" not in host and ("0.0.0.0", port) in wanted)
        )
    ]


@dataclass(frozen=True, slots=True)
class _Target:
    family: socket.AddressFamily
    name: tuple[str, int]
    dual: bool = False  # IPv6 and IPv4 by one socket


@dataclass(frozen=True, slots=True)
class _Port:
    target: _Target
    socket: socket.socket
    accepting: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Owners:
    server: Server
    tls: Adapter
    on_raft: Callable[[socket.socket], None]


class Listener:
    """All sockets of one daemon. Connections belong to the server they went to and survive a change."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._mux = Mux(self._to_raft, self._to_http)
        self._changing = asyncio.Lock()
        self._ports: dict[Address, _Port] = {}
        self._unix: asyncio.Server | None = None
        self._unix_path: tuple[Path, int] | None = None  # where, and the inode that is ours
        self._owners: _Owners | None = None

    async def start_unix(self, path: Path, group: str | None, server: Server) -> None:
        """Serve on a socket of mode 0660, the group's when one is given.

        What a dead daemon left is replaced; Conflict when a living one answers there. Invalid when there is
        no such group, or the socket cannot be made.
        """
        sock, inode = _unix_socket(path, group)
        loop = asyncio.get_running_loop()
        self._unix = await loop.create_unix_server(server, sock=sock, backlog=ACCEPTED_AT_ONCE)
        sock.listen(
            BACKLOG
        )  # for asyncio the backlog is also how many it accepts before it does anything else
        self._unix_path = path, inode

    async def listen(
        self,
        addresses: str | Iterable[str],
        server: Server,
        tls: Adapter,
        on_raft: Callable[[socket.socket], None],
    ) -> None:
        """Listen on these addresses and on no others; none closes the network.

        May be called at any time again: what stays is not disturbed, what goes only stops accepting. Invalid
        when one cannot be had, and then all is as before. `on_raft` gets non-blocking sockets, on this loop.
        """
        async with self._changing:
            await self._listen(addresses, _Owners(server, tls, on_raft))

    async def _listen(self, addresses: str | Iterable[str], owners: _Owners) -> None:
        texts = [addresses] if isinstance(addresses, str) else addresses
        wanted = _without_covered([parse_address(text) for text in texts if text])
        resolved = {address: await _resolve(address) for address in wanted if address not in self._ports}
        gone = {address: port.target for address, port in self._ports.items() if address not in wanted}
        for address in gone:
            await self._shut(address)  # first: an old wildcard would be in a new address' way
        before, self._owners = self._owners, owners
        try:
            self._open(resolved)
        except Invalid:
            self._owners = before
            self._open(gone)
            raise

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the ports as the kernel gave them."""
        return [join_address(port.socket.getsockname()[:2]) for port in self._ports.values()]

    async def close(self) -> None:
        """Accept nothing more, remove the unix socket. Connections are their server's to end. Idempotent."""
        for address in list(self._ports):
            await self._shut(address)
        if self._unix is not None:
            self._unix.close()
            self._unix = None
        if self._unix_path is not None:
            _remove(*self._unix_path)
            self._unix_path = None

    def _open(self, targets: Mapping[Address, _Target]) -> None:
        """All of them, or Invalid and none."""
        sockets: dict[Address, socket.socket] = {}
        try:
            for address, target in targets.items():
                sockets[address] = _bound(target)
        except BaseException:
            for sock in sockets.values():
                sock.close()
            raise
        for address, sock in sockets.items():
            actual = replace(targets[address], name=sock.getsockname()[:2])
            self._ports[address] = _Port(actual, sock, self._tasks.create_task(self._mux.serve(sock)))

    async def _shut(self, address: Address) -> None:
        port = self._ports.pop(address)
        port.accepting.cancel()
        await asyncio.wait([port.accepting])
        port.socket.close()

    def _to_raft(self, sock: socket.socket) -> None:
        if self._owners is None:
            sock.close()
        else:
            self._owners.on_raft(sock)

    async def _to_http(self, sock: socket.socket) -> None:
        owners = self._owners
        if owners is None:
            sock.close()
            return
        context = cast(ssl.SSLContext, owners.tls)  # all asyncio wants of it is wrap_bio
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                owners.server,
                sock,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=GOODBYE_TIMEOUT,
            )
        except OSError as error:  # TLS errors are among them
            log.debug("TLS handshake failed: %s", error)


async def _resolve(address: Address) -> _Target:
    host, port = address
    if not host:
        if socket.has_dualstack_ipv6():
            return _Target(socket.AF_INET6, ("::", port), dual=True)
        return _Target(socket.AF_INET, ("0.0.0.0", port))
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise Invalid(f"Cannot listen on {join_address(address)}: {error.strerror or error}") from error
    # As Go does: of a name's addresses the first, IPv4 before IPv6.
    family, _, _, _, name = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return _Target(family, (str(name[0]), int(name[1])))


def _bound(target: _Target) -> socket.socket:
    try:
        sock = socket.create_server(
            target.name, family=target.family, backlog=BACKLOG, dualstack_ipv6=target.dual
        )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Invalid(f"Cannot listen on {join_address(target.name)}: {reason}") from error
    sock.setblocking(False)
    return sock


def _unix_socket(path: Path, group: str | None) -> tuple[socket.socket, int]:
    """Bound, not listening yet; and its inode."""
    gid = _gid_of(group) if group else -1
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o660)  # nobody can connect before it listens
        os.chown(path, -1, gid)
        return sock, path.stat().st_ino
    except OSError as error:
        sock.close()
        raise Invalid(f"Cannot listen on {path}: {error.strerror or error}") from error


def _remove(path: Path, inode: int) -> None:
    """Unless another daemon has put its own socket there."""
    if path.exists() and path.stat().st_ino == inode:
        path.unlink()


def _gid_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Invalid(f"No such group: {group}", group=group) from error


def _clear_stale(path: Path) -> None:
    """Remove the socket of a daemon that is gone; Conflict when somebody answers."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Invalid(f"In the way of the socket: {path}")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its queue is full: there is somebody
    raise Conflict(f"A daemon is running: it answers on {path}")
