"""Datagrams that come in at one socket, passed on by sender, and the answers to each. Standard library only.

What there is no room for is dropped, as a network would. Answers come from the address that was asked, also
where the socket listens on all.
"""

import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from lxdpy.host.proxy.loop import Loop
from lxdpy.host.proxy.streams import is_datagram

LONGEST = 65_535  # bytes
AT_ONCE = 64  # datagrams before another socket's turn
IDLE = 180.0  # seconds without a datagram either way until a sender is forgotten, as conntrack does
SWEEP_EVERY = 30.0  # seconds
MOST = 2048  # senders at once; the one that was silent for longest makes room
EARLY = 16  # datagrams kept while a stream is being connected
IP_PKTINFO = 8  # linux/in.h
ROOM = 256  # bytes of control messages

Dial = Callable[[], tuple[socket.socket, Any]]
Asked = list[tuple[int, int, bytes]]
"""The address that was asked, as a control message of sendmsg(2)."""


def tell_asked(listener: socket.socket) -> None:
    """Have the kernel say of each datagram which of our addresses it was for."""
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _asked(told: Asked) -> Asked:
    for level, kind, data in told:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            _, ours, _ = struct.unpack("=I4s4s", data)
            return [(level, kind, struct.pack("=I4s4s", 0, ours, b""))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return [(level, kind, data)]
    return []


class Flow:
    """What comes from one sender, and back to it."""

    def __init__(
        self, end: socket.socket, back: Callable[[bytes], None], dropped: Callable[[], None]
    ) -> None:
        self.end = end
        self.used = time.monotonic()
        self._back, self._dropped = back, dropped
        self._early: list[bytes] | None = []

    def forth(self, data: bytes) -> None:
        self.used = time.monotonic()
        if self._early is not None:
            if len(self._early) < EARLY:
                self._early.append(data)
            return
        try:
            self.end.send(data)
        except BlockingIOError:
            return
        except OSError:
            self._broken()

    def begin(self) -> None:
        """The other side is connected."""
        early, self._early = self._early or [], None
        for data in early:
            self.forth(data)

    def ready(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data = self.end.recv(LONGEST)
            except BlockingIOError:
                return
            except OSError:
                self._broken()
                return
            if not data and not is_datagram(self.end):
                self._dropped()
                return
            self.used = time.monotonic()
            self._back(data)

    def _broken(self) -> None:
        """A stream has. Of datagrams it only means that nobody took the last one."""
        if not is_datagram(self.end):
            self._dropped()


class Datagrams:
    """A socket that datagrams come in at. `dial` gives a socket for a sender, and where to connect it."""

    def __init__(self, loop: Loop, listener: socket.socket, dial: Dial) -> None:
        self._loop, self._listener, self._dial = loop, listener, dial
        self._flows: OrderedDict[object, Flow] = OrderedDict()
        loop.want(listener.fileno(), self._come, read=True, write=False)
        loop.later(SWEEP_EVERY, self._sweep)

    def _come(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, told, _, sender = self._listener.recvmsg(LONGEST, ROOM)
            except BlockingIOError:
                return
            except OSError:
                continue  # an answer that nobody took: told of here, and of no use
            if flow := self._flow(sender, _asked(told)):
                flow.forth(data)

    def _flow(self, sender: Any, asked: Asked) -> Flow | None:
        key = (sender, *asked)
        if flow := self._flows.get(key):
            self._flows.move_to_end(key)
            return flow
        if len(self._flows) >= MOST:
            self._drop(next(iter(self._flows)))
        try:
            end, address = self._dial()
        except OSError:
            return None  # no descriptor is left
        flow = Flow(end, lambda data: self._answer(data, asked, sender), lambda: self._drop(key))
        self._flows[key] = flow
        self._connect(key, flow, address)
        return self._flows.get(key)

    def _connect(self, key: object, flow: Flow, address: Any) -> None:
        def begun() -> None:
            if flow.end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._drop(key)
                return
            self._loop.want(flow.end.fileno(), flow.ready, read=True, write=False)
            flow.begin()

        try:
            flow.end.connect(address)
        except BlockingIOError:
            self._loop.want(flow.end.fileno(), begun, read=False, write=True)
        except OSError:
            self._drop(key)
        else:
            begun()

    def _answer(self, data: bytes, asked: Asked, sender: Any) -> None:
        try:
            self._listener.sendmsg([data], asked, 0, sender)
        except OSError:
            return  # dropped: no room, or no way to the sender any more

    def _drop(self, key: object) -> None:
        if flow := self._flows.pop(key, None):
            self._loop.forget(flow.end.fileno())
            flow.end.close()

    def _sweep(self) -> None:
        late = time.monotonic() - IDLE
        for key in [key for key, flow in self._flows.items() if flow.used < late]:
            self._drop(key)
        self._loop.later(SWEEP_EVERY, self._sweep)
