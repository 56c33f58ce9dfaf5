"""What LXC's monitor sends of a call, and what it wants back: linux/seccomp.h, LXC's lxcseccomp.h. PURE."""

import struct
from typing import NamedTuple

HEAD = struct.Struct("=QiiHHH2xQ")  # reserved, monitor, first process, sizes of the next two and data, cookie
CALL = struct.Struct("=QIIiIQ6Q")  # id, thread, flags, number, architecture, instruction, arguments
ANSWER = struct.Struct("=QqiI")  # id, value, minus errno, flags
DATA = 64  # bytes of the part of CALL from the number on
LONGEST = 4096  # bytes of a message; the cookie is a container's name
CONTINUE = 1  # flag: the kernel is to make the call after all, as if nobody had looked
DESCRIPTORS = 3  # of /proc/PID, its memory, and the kernel's notifications


class Call(NamedTuple):
    """A call that waits. `thread` and `init` are numbers of the host."""

    id: int
    thread: int
    init: int
    number: int
    architecture: int
    arguments: tuple[int, ...]


class Answer(NamedTuple):
    value: int = 0
    errno: int = 0
    flags: int = 0


LEFT = Answer(flags=CONTINUE)


def parse(message: bytes) -> Call | None:
    """None for what this is not."""
    if len(message) < HEAD.size + CALL.size + ANSWER.size:
        return None
    reserved, _, init, size, answer, data, _ = HEAD.unpack_from(message)
    if reserved or (size, answer, data) != (CALL.size, ANSWER.size, DATA):
        return None
    return call_of(message[HEAD.size : HEAD.size + CALL.size], init)


def call_of(notice: bytes, init: int) -> Call:
    """What the kernel says, of a container with that first process."""
    number, thread, _, call, architecture, _, *arguments = CALL.unpack(notice)
    return Call(number, thread, init, call, architecture, tuple(arguments))


def reply(message: bytes, answer: Answer) -> bytes:
    """To the message, which comes back but for its cookie."""
    call = parse(message)
    assert call is not None
    said = ANSWER.pack(call.id, answer.value, -answer.errno, answer.flags)
    return message[: HEAD.size + CALL.size] + said
