"""One connection between two members: frames over TLS.

Each member dials each other one and speaks only on connections it dialled; on those it accepted it listens.
So no two connections need to agree which of them counts. A frame is its length (u32, little-endian) and one
msgpack message.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from cluster.raft.messages import Dismissed, Hello, Message, Welcome, decode, encode

log = logging.getLogger(__name__)

LENGTH = struct.Struct("<I")
MAX_FRAME = 4 << 20  # bytes; the largest message is two entries of the library's message size
MAX_HELLO = 4096  # bytes, from a peer that has not said which cluster it means
MAX_BUFFER = 128 << 20  # bytes not yet sent: the other end is beyond hope, or far too slow
DEAD_AFTER = 5000  # milliseconds without any acknowledgement by the other end's TCP


class Switchboard(Protocol):
    """What connections need of their carrier."""

    cluster_id: str
    me: str

    def member_of(self, transport: asyncio.BaseTransport) -> str | None: ...
    def was_removed(self, transport: asyncio.BaseTransport, member: str) -> bool: ...
    def opened(self, link: "Incoming") -> None: ...
    def accepted(self, link: "Incoming") -> None: ...
    def up(self, link: "Outgoing") -> None: ...
    def dismissed(self, by: str) -> None: ...
    def down(self, link: "Incoming | Outgoing") -> None: ...
    def receive(self, member: str, message: Message) -> None: ...


class Malformed(ValueError):
    """A frame that no member sends."""


class Frames:
    """Cuts a stream into messages."""

    def __init__(self) -> None:
        self.limit = MAX_HELLO
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Raises Malformed. The limit may be raised while messages are taken."""
        buffer = self._buffer
        buffer += data
        offset = 0
        while len(buffer) - offset >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, offset)
            start = offset + LENGTH.size
            if length > self.limit:
                raise Malformed(f"a frame of {length} bytes")
            if len(buffer) < start + length:
                break
            try:
                message = decode(bytes(memoryview(buffer)[start : start + length]))
            except msgspec.MsgspecError as error:
                raise Malformed(str(error)) from error
            offset = start + length
            yield message
        del buffer[:offset]


def frame(message: Message) -> bytes:
    payload = encode(message)
    return LENGTH.pack(len(payload)) + payload


class Incoming(asyncio.Protocol):
    """A connection somebody dialled to us. Who it is, the certificate says."""

    def __init__(self, board: Switchboard) -> None:
        self.member = ""
        self._board = board
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._board.opened(self)
        tune(transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if self.member:
                    self._board.receive(self.member, message)
                elif not self._greet(message):
                    return
        except Malformed as error:
            log.warning("raft link from %s closed: %s", self.member or "a stranger", error)
            self.abort()

    def _greet(self, message: Message) -> bool:
        """False: the connection ends here."""
        board = self._board
        assert self._transport is not None
        member = board.member_of(self._transport)
        if not isinstance(message, Hello) or message.cluster != board.cluster_id:
            log.warning("raft link from %s refused: it does not mean this cluster", member or "a stranger")
        elif member is None and board.was_removed(self._transport, message.me):
            self._transport.write(frame(Dismissed()))
            self._transport.close()  # once that is sent
            return False
        elif member is None:
            log.warning("raft link refused: not a member")
        elif member != message.me:
            log.warning("raft link from %s refused: it says that it is %s", member, message.me)
        elif message.to != board.me:
            log.warning("raft link from %s refused: it wants %s", member, message.to)
        else:
            self._welcome(member)
            return True
        self.abort()
        return False

    def _welcome(self, member: str) -> None:
        assert self._transport is not None
        self.member = member
        self._frames.limit = MAX_FRAME
        self._transport.write(frame(Welcome()))
        self._board.accepted(self)

    def is_trusted(self) -> bool:
        return self._transport is not None and self._board.member_of(self._transport) == self.member

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._board.down(self)


class Outgoing(asyncio.Protocol):
    """A connection we dialled, to a member whose certificate was expected. Up after its welcome."""

    def __init__(self, board: Switchboard, member: str) -> None:
        self.member = member
        self.welcomed = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._board = board
        self._frames = Frames()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        tune(transport)
        if self._board.member_of(transport) != self.member:
            log.warning("raft link to %s closed: somebody else answered", self.member)
            self.abort()
            return
        transport.set_write_buffer_limits(high=MAX_BUFFER)
        transport.write(frame(Hello(self._board.cluster_id, self.member, self._board.me)))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if not self._answered(message):
                    return
        except Malformed:
            self._refuse()

    def _answered(self, message: Message) -> bool:
        """The one answer to our hello. False: the connection ends here."""
        if isinstance(message, Welcome) and not self.welcomed:
            self.welcomed = True
            self._board.up(self)
            return True
        if isinstance(message, Dismissed) and not self.welcomed:
            self._board.dismissed(self.member)
            self.abort()
        else:
            self._refuse()
        return False

    def _refuse(self) -> None:
        log.warning("raft link to %s closed: it does not speak our language", self.member)
        self.abort()

    def pause_writing(self) -> None:
        log.warning("raft link to %s closed: %d bytes wait to be sent", self.member, MAX_BUFFER)
        self.abort()

    @property
    def backlog(self) -> int:
        """Bytes not yet taken by the network."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def is_trusted(self) -> bool:
        return self._board.member_of(self._transport) == self.member

    def abort(self) -> None:
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._board.down(self)
        if not self.closed.done():
            self.closed.set_result(None)


def tune(transport: asyncio.Transport) -> None:
    """Small messages at once; a peer that vanished is noticed in seconds, not hours."""
    connection: Any = transport.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
