"""The sockets of a proxy's process: made in the namespaces they belong to. Standard library only."""

import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lxdpy.host import mounts
from lxdpy.host.proxy.datagrams import tell_asked

BACKLOG = 4096
FREEBIND = {  # options of linux/in.h and linux/in6.h
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}
AT_ONCE = 200  # descriptors in a message; the kernel takes 253
Address = dict[str, Any]
"""{"kind": "tcp", "udp" or "unix", "host", "port"}: one port of an Endpoint."""


class Owner(NamedTuple):
    """Of a unix socket that is a file."""

    uid: int
    gid: int
    mode: int


class Place(NamedTuple):
    """Where the file of a unix socket is, to remove it in the end. `folder` is a descriptor."""

    folder: int
    name: str
    inode: int


def open_socket(address: Address) -> socket.socket:
    """Of the kind that an address needs; does not block."""
    if address["kind"] == "unix":
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address["host"] else socket.AF_INET
    kind = socket.SOCK_DGRAM if address["kind"] == "udp" else socket.SOCK_STREAM
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    if address["kind"] == "tcp":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def name_of(address: Address) -> Any:
    """As the socket's calls want it."""
    if address["kind"] != "unix":
        return (address["host"], address["port"])
    host: str = address["host"]
    return f"\0{host[1:]}" if host.startswith("@") else host


def listen(address: Address, owner: Owner, *, early: bool = False) -> socket.socket:
    """`early`: also where the IP address is not there yet. Raises OSError, its file name the address."""
    made = open_socket(address)
    try:
        if address["kind"] == "unix":
            _bind_unix(made, name_of(address), owner)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(address["kind"] == "tcp"))
            if early:
                made.setsockopt(*FREEBIND[made.family], 1)
            made.bind(name_of(address))
        if address["kind"] == "udp":
            tell_asked(made)
        else:
            made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror or str(error), shown(address)) from None
    return made


def shown(address: Address) -> str:
    host = address["host"]
    if address["kind"] == "unix":
        return f"unix:{host}"
    return f"{address['kind']}:{f'[{host}]' if ':' in host else host}:{address['port']}"


def _bind_unix(made: socket.socket, name: str, owner: Owner) -> None:
    """A file that a socket nobody listens at has left is replaced, no other."""
    if name.startswith("\0"):
        made.bind(name)
        return
    if is_left(name):
        os.unlink(name)
    os.fchmod(made.fileno(), owner.mode)  # taken over by the file, so that it never has another
    before = os.umask(0)
    try:
        made.bind(name)
    finally:
        os.umask(before)
    os.chown(name, owner.uid, owner.gid, follow_symlinks=False)


def is_left(path: str) -> bool:
    """Whether it is the file of a socket at which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def place_of(address: Address) -> Place | None:
    """None for what leaves no file."""
    if address["kind"] != "unix" or address["host"].startswith("@"):
        return None
    folder, name = os.path.split(address["host"])
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return Place(handle, name, os.stat(name, dir_fd=handle, follow_symlinks=False).st_ino)


def remove(place: Place) -> None:
    """Remove the file, if it is still that one."""
    try:
        if os.stat(place.name, dir_fd=place.folder, follow_symlinks=False).st_ino == place.inode:
            os.unlink(place.name, dir_fd=place.folder)
    except FileNotFoundError:
        return


def listen_inside(
    init: int, addresses: Iterable[Address], owner: Owner
) -> tuple[list[socket.socket], Place | None]:
    """As `listen`, for each, by a child that has become root of the container (`init` is a pidfd)."""
    wanted = [*addresses]

    def made() -> tuple[list[int], list[Any]]:
        step_inside(init)
        found = [listen(address, owner, early=True) for address in wanted]  # DHCP has not begun
        place = place_of(wanted[0])
        fds = [one.detach() for one in found] + ([place.folder] if place else [])
        return fds, list(place[1:]) if place else []

    fds, place = in_child(made)
    folder = fds.pop() if place else -1
    return [socket.socket(fileno=fd) for fd in fds], Place(folder, *place) if place else None


def step_inside(init: int) -> None:
    """Become root of the container, in its mounts and network. Its files must never be taken for modules."""
    sys.path.clear()
    sys.meta_path.clear()
    mounts.enter(init, network=True)


def in_child(work: Callable[[], tuple[list[int], list[Any]]]) -> tuple[list[int], list[Any]]:
    """What `work` gives in a child of its own: descriptors, and what can be written as JSON."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        _answer(theirs, work)
    theirs.close()
    fds: list[int] = []
    with ours:
        while True:
            said, more, _, _ = socket.recv_fds(ours, 1 << 16, AT_ONCE, socket.MSG_CMSG_CLOEXEC)
            fds += more
            if said != b"+":
                break
    os.waitpid(child, 0)
    reply = json.loads(said or '{"errno": 0, "error": "the child was ended", "file": null}')
    if isinstance(reply, dict):
        raise OSError(reply["errno"], reply["error"], reply["file"])
    return fds, reply


def _answer(end: socket.socket, work: Callable[[], tuple[list[int], list[Any]]]) -> None:
    try:
        fds, more = work()
        while fds:
            socket.send_fds(end, [b"+"], fds[:AT_ONCE])
            fds = fds[AT_ONCE:]
        end.send(json.dumps(more).encode())
    except OSError as error:
        reply = {"errno": error.errno, "error": error.strerror or str(error), "file": error.filename}
        end.send(json.dumps(reply).encode())
    finally:
        os._exit(0)
