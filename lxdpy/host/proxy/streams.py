"""A connection that came in and the one it is passed on to, copied both ways. Standard library only.

Nothing is read for which there is no room on the other side, so whoever is slow slows down the sender, and a
connection never has more than one piece in memory. The end of what one side sends is passed on alone: the
other way stays open. A side that breaks off breaks the other off.
"""

import errno
import socket
import struct
from typing import Any

from lxdpy.host.proxy.loop import Loop

PIECE = 256 << 10  # bytes copied at once
DATAGRAM = 65_507  # bytes; what IPv4 can carry
AT_ONCE = 8  # pieces before another connection's turn
TRY_AGAIN = 0.05  # seconds; a unix socket whose queue is full cannot be waited for
TRIES = 200
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() breaks off

_piece = bytearray(PIECE)
_view = memoryview(_piece)


class Way:
    """One direction."""

    def __init__(self, source: socket.socket, target: socket.socket, waiting: bytes = b"") -> None:
        self.source, self.target, self.waiting = source, target, waiting
        self.ended = False
        self._packets = is_datagram(source)  # of which an empty one is no end
        self._limit = DATAGRAM if is_datagram(target) else PIECE

    def copy(self) -> None:
        """As much as is there and has room. Raises OSError when a side has broken off."""
        for _ in range(AT_ONCE):
            if self.ended or (self.waiting and not self._flush()):
                return
            try:
                count = self.source.recv_into(_piece, self._limit)
            except BlockingIOError:
                return
            if count or self._packets:
                sent = _send(self.target, _view[:count])
                self.waiting = bytes(_view[sent:count])
            else:
                self.ended = True
                if not is_datagram(self.target):
                    self.target.shutdown(socket.SHUT_WR)

    def _flush(self) -> bool:
        self.waiting = self.waiting[_send(self.target, memoryview(self.waiting)) :]
        return not self.waiting


def is_datagram(end: socket.socket) -> bool:
    return bool(end.type & socket.SOCK_DGRAM)


def _send(target: socket.socket, data: memoryview) -> int:
    try:
        return target.send(data)
    except BlockingIOError:
        return 0


class Pair:
    """`client` has come in, `other` is to be connected to `address`; both do not block, and are ours now.

    `header` is sent ahead.
    """

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        other: socket.socket,
        address: Any,
        header: bytes = b"",
    ) -> None:
        self._loop, self._client, self._other, self._address = loop, client, other, address
        self._forth, self._back = Way(client, other, header), Way(other, client)
        self._tries = TRIES
        self._dial()

    def _dial(self) -> None:
        code = self._other.connect_ex(self._address)
        if code == errno.EAGAIN and self._tries:
            self._tries -= 1
            self._loop.later(TRY_AGAIN, self._dial)
        elif code == errno.EINPROGRESS:
            self._loop.want(self._other.fileno(), self._answered, read=False, write=True)
        else:
            self._begin(code)

    def _answered(self) -> None:
        self._begin(self._other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _begin(self, code: int) -> None:
        if code:
            self._close(reset=True)
        else:
            self._turn()

    def _turn(self) -> None:
        forth, back = self._forth, self._back
        try:
            forth.copy()
            back.copy()
        except OSError:
            self._close(reset=True)
            return
        if forth.ended and (back.ended or is_datagram(self._other)):
            self._close()
            return
        for way, other in ((forth, back), (back, forth)):
            read = not way.ended and not way.waiting
            self._loop.want(way.source.fileno(), self._turn, read=read, write=bool(other.waiting))

    def _close(self, *, reset: bool = False) -> None:
        for end in (self._client, self._other):
            self._loop.forget(end.fileno())
            if reset and end.family != socket.AF_UNIX:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.close()
