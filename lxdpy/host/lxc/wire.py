"""Messages between the daemon and its helper: JSON and descriptors, one packet each.

A packet socket keeps messages apart and whole, and a message's descriptors with it. Both sides are this
very version of this program, so nothing here has to be compatible with anything.
"""

import array
import errno
import json
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

LIMIT = 4 << 20  # bytes; arguments and environment of a program may take 2 MiB together, JSON some more
MAX_FDS = 8
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33


def pair() -> tuple[socket.socket, socket.socket]:
    """Two joined sockets that take messages of up to LIMIT."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, LIMIT)
        end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LIMIT)
    return ends


def buffer() -> mmap.mmap:
    """For `receive`. Pages that no message needed yet take no memory; none is copied when a process forks."""
    return mmap.mmap(-1, LIMIT)


def send(end: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """May raise BlockingIOError on a socket that does not block, and OSError when the other end is gone.

    EMSGSIZE: longer than LIMIT, which the other end could not take.
    """
    data = json.dumps(message).encode()
    if len(data) > LIMIT:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([data], rights)


def receive(end: socket.socket, buffer: mmap.mmap) -> tuple[Message | None, list[int]]:
    """The next message and its descriptors, which do not survive an exec; None when the other end is gone."""
    size, rights, _, _ = end.recvmsg_into(
        [buffer], socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return (json.loads(buffer[:size]) if size else None), list(fds)
