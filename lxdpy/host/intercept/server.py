"""Who asks the process beside a container: LXC, and the kernel, for programs started from outside."""

import contextlib
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable

from lxdpy.host.companion.process import Task
from lxdpy.host.intercept.answering import answer
from lxdpy.host.intercept.joining import JOIN, LISTEN
from lxdpy.host.intercept.message import ANSWER, CALL, DESCRIPTORS, LONGEST, call_of, parse, reply

TOO_LATE = 27.0  # seconds since a call came: the connection is closed instead of answering
COMES_WITHIN = 180.0  # seconds until LXC connects, once we are there for it; a start takes less than 120
CREDENTIALS = struct.Struct("iII")  # SO_PEERCRED
NOTIF_RECEIVE, NOTIF_SEND, NOTIF_VALID = 0xC0502100, 0xC0182101, 0x40082102  # SECCOMP_IOCTL_NOTIF_…


class Server:
    """One call after the other. `monitor`: a descriptor of LXC's process, -1 if it is still to come."""

    def __init__(self, task: Task, listener: socket.socket, monitor: int) -> None:
        self._task, self._listener, self._monitor = task, listener, -1
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._over = False
        self._want(listener.fileno(), lambda _: self._accept())
        if monitor >= 0:
            self._follow(monitor)

    def run(self) -> None:
        """Returns when the monitor has ended, or has never come."""
        while not self._over:
            ready = self._poll.poll(COMES_WITHIN if self._monitor < 0 else None)
            if not ready:
                return
            for fd, events in ready:
                if fd in self._handlers:
                    self._handlers[fd](events)

    def _want(self, fd: int, handler: Callable[[int], None]) -> None:
        self._poll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def _leave(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._handlers[fd]

    def _follow(self, monitor: int) -> None:
        def over(_: int) -> None:
            self._over = True

        self._monitor = monitor
        self._want(monitor, over)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        said = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, _ = CREDENTIALS.unpack(said)
        if not uid and self._monitor < 0:
            with contextlib.suppress(ProcessLookupError):
                self._follow(os.pidfd_open(pid))  # the first to come is LXC's
        if uid or self._monitor < 0:
            client.close()
            return
        self._want(client.fileno(), lambda _: self._hear(client))

    def _hang_up(self, client: socket.socket) -> None:
        self._leave(client.fileno())
        client.close()

    def _hear(self, client: socket.socket) -> None:
        begun = time.monotonic()
        try:
            message, fds, _, _ = socket.recv_fds(client, LONGEST, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            message, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)  # Python 3.11 passes no flags on
        if message.startswith(LISTEN) and len(message) == JOIN.size and len(fds) == 1:
            self._join(fds.pop(), JOIN.unpack(message)[1])
            message = b""
        said = self._said(message, fds)
        for fd in fds:
            os.close(fd)
        try:
            if not said or time.monotonic() - begun > TOO_LATE:
                self._hang_up(client)
            else:
                client.send(said)
        except OSError:
            self._hang_up(client)

    def _said(self, message: bytes, fds: list[int]) -> bytes:
        call = parse(message)
        if call is None or len(fds) != DESCRIPTORS:
            return message[:1]  # too short: LXC takes it for no answer, and gives its own
        return reply(message, answer(self._task, call, fds))

    def _join(self, listener: int, init: int) -> None:
        def ready(events: int) -> None:
            if events & select.EPOLLIN:
                self._notified(listener, init)
            else:  # the last process with that filter has ended
                self._leave(listener)
                os.close(listener)

        self._want(listener, ready)

    def _notified(self, listener: int, init: int) -> None:
        """As LXC does with its own. Not answered is only what is gone already."""
        notice = bytearray(CALL.size)
        fds: list[int] = []
        with contextlib.suppress(OSError):
            fcntl.ioctl(listener, NOTIF_RECEIVE, notice)
            call = call_of(bytes(notice), init)
            try:
                fds.append(os.open(f"/proc/{call.thread}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                fds.append(os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=fds[0]))
                fcntl.ioctl(listener, NOTIF_VALID, struct.pack("=Q", call.id))
                made = answer(self._task, call, [*fds, listener])
                said = ANSWER.pack(call.id, made.value, -made.errno, made.flags)
                fcntl.ioctl(listener, NOTIF_SEND, said)
            finally:
                for fd in fds:
                    os.close(fd)
