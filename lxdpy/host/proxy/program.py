"""The process of one proxy device, started by `control`. Standard library only; one thread.

What it does comes as `control.Task`; see `lxdpy.host.companion`. It ends with the container, or by a signal.

Inside a container's mounts an `import` would read the container's files: see `sockets.step_inside`.
"""

import contextlib
import ctypes
import os
import signal
import socket
from ipaddress import ip_address
from typing import Any, NoReturn

from lxdpy.host.companion import process
from lxdpy.host.companion.process import Task
from lxdpy.host.proxy.datagrams import Datagrams
from lxdpy.host.proxy.loop import Loop
from lxdpy.host.proxy.sockets import (
    Address,
    Owner,
    Place,
    listen,
    listen_inside,
    name_of,
    open_socket,
    remove,
    step_inside,
)
from lxdpy.host.proxy.streams import Pair

AT_ONCE = 64  # connections accepted before another socket's turn
FULL = 0.5  # seconds until connections are accepted again when no descriptor was left
PR_SET_NO_NEW_PRIVS = 38
Prepared = tuple[int, list[socket.socket], Place | None]
"""The first process, where we listen, and the file of that inside."""


class Listener:
    """A socket that connections come in at, and where they are passed on to."""

    def __init__(self, loop: Loop, end: socket.socket, target: Address, *, header: bool) -> None:
        self._loop, self._end, self._target, self._header = loop, end, target, header
        self._wait()

    def _wait(self) -> None:
        self._loop.want(self._end.fileno(), self._come, read=True, write=False)

    def _come(self) -> None:
        for _ in range(AT_ONCE):
            client = None
            try:
                client, _ = self._end.accept()
                other = open_socket(self._target)
            except BlockingIOError:
                return
            except OSError:  # it has gone again, or there is no descriptor for it
                if client:
                    client.close()
                self._loop.want(self._end.fileno(), self._come, read=False, write=False)
                self._loop.later(FULL, self._wait)
                return
            client.setblocking(False)
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            header = told(client) if self._header else b""
            Pair(self._loop, client, other, name_of(self._target), header)


def told(client: socket.socket) -> bytes:
    """The PROXY protocol's first line, version 1: who is connected to what."""
    if client.family == socket.AF_UNIX:
        return b"PROXY UNKNOWN\r\n"
    try:
        ends = [client.getpeername(), client.getsockname()]
    except OSError:
        return b"PROXY UNKNOWN\r\n"  # it has gone again
    (source, target), ports = [_plain(end[0]) for end in ends], [end[1] for end in ends]
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {target} {ports[0]} {ports[1]}\r\n".encode()


def _plain(address: str) -> str:
    """An IPv4 address that came in over an IPv6 socket is shown as what it is."""
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped or found)


def main(file: str) -> NoReturn:
    process.main(file, _prepared, _serve, trouble="Cannot listen on")


def _prepared(task: Task) -> Prepared:
    init = os.pidfd_open(task["init"])
    if process.born(task["init"]) != task["born"]:
        raise ProcessLookupError(3, "The instance has ended")
    owner = Owner(*task["owner"])
    if task["bind"] == "host":
        listeners = [listen(address, owner) for address in task["listen"]]
        place = None  # that of the host the daemon removes: by then we may not
        step_inside(init)
    else:
        listeners, place = listen_inside(init, task["listen"], owner)
    _drop_rights(*task["security"])
    return init, listeners, place


def _drop_rights(uid: int, gid: int) -> None:
    """Become the user: the instance's own, where it is entered."""
    os.chdir("/")
    if uid or gid:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _serve(task: Task, prepared: Prepared) -> NoReturn:
    init, listeners, place = prepared

    def end(*_: object) -> NoReturn:
        if place:
            with contextlib.suppress(OSError):
                remove(place)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    loop = Loop()
    loop.want(init, end, read=True, write=False)
    for listener, source, target in zip(listeners, task["listen"], task["connect"], strict=True):
        if source["kind"] == "udp":
            Datagrams(loop, listener, _dialer(target))
        else:
            Listener(loop, listener, target, header=task["header"])
    while True:
        loop.turn()


def _dialer(target: Address) -> Any:
    return lambda: (open_socket(target), name_of(target))
