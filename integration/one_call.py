"""A program of a few bytes that makes one system call and ends with its errno, 0 if there is none.

For x86_64 only, as a 64-bit program makes it, or by the door of 32-bit ones.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

START = 0x400000
HEADERS = 64 + 56  # bytes of the ELF header and the one segment's
REGISTERS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
OLD_REGISTERS = (b"\xbb", b"\xb9", b"\xba", b"\xbe", b"\xbf")
# edi = rax < 0 ? -eax : 0, then exit(edi).
END = b"\x31\xff\x48\x85\xc0\x79\x04\x89\xc7\xf7\xdf\xb8\x3c\x00\x00\x00\x0f\x05"

LAST = b"\x48\x85\xc0" + b"\x78\x02" + b"\x31\xc0" + b"\x89\xc7\xf7\xdf\xb8\x3c\x00\x00\x00\x0f\x05"
"""What is not negative is 0; its negative is told."""


def program(number: int, *arguments: int | bytes, old: bool = False) -> bytes:
    """The file. Bytes are passed by address, with a zero byte after them. `old`: as a 32-bit program does."""
    length = HEADERS + (len(_code(number, [0] * len(arguments), old=old)))
    texts = b""
    values = []
    for argument in arguments:
        if isinstance(argument, bytes):
            values.append(START + length + len(texts))
            texts += argument + b"\0"
        else:
            values.append(argument)
    body = _code(number, values, old=old) + texts
    return _file(body)


def _file(body: bytes) -> bytes:
    size = HEADERS + len(body)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, START + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, START, START, size, size, 0x1000)
    return head + segment + body


def _code(number: int, values: list[int], *, old: bool) -> bytes:
    if old:
        moves = b"".join(
            door + struct.pack("<i", value) for door, value in zip(OLD_REGISTERS, values, strict=False)
        )
        # The 32-bit result becomes a 64-bit one.
        return b"\xb8" + struct.pack("<I", number) + moves + b"\xcd\x80\x48\x98" + END
    moves = b"".join(door + struct.pack("<q", value) for door, value in zip(REGISTERS, values, strict=False))
    return b"\x48\xb8" + struct.pack("<q", number) + moves + b"\x0f\x05" + END


class Of(NamedTuple):
    """The result of an earlier call of a `chain`, by its place."""

    call: int


class Text(NamedTuple):
    """Bytes with the addresses of others in them (8 bytes each), and results (4 bytes), by where."""

    data: bytes
    holes: Mapping[int, "bytes | Text | Of"]


def chain(*calls: tuple["int | bytes | Text | Of", ...]) -> bytes:
    """As `program`, of several calls: number and arguments each. It ends with the first errno."""
    data = bytearray()
    links: list[tuple[int, int]] = []
    results: list[tuple[int, Of]] = []

    def put(item: "bytes | Text") -> int:
        text = item if isinstance(item, Text) else Text(item, {})
        inner = {at: one if isinstance(one, Of) else put(one) for at, one in text.holes.items()}
        start = len(data)
        data.extend(text.data + b"\0")
        for at, one in inner.items():
            if isinstance(one, Of):
                results.append((start + at, one))
            else:
                links.append((start + at, one))
        return start

    values = [[put(one) if isinstance(one, bytes | Text) else one for one in call] for call in calls]
    places = [[isinstance(one, bytes | Text) for one in call] for call in calls]
    uses = [sum(one == Of(number) for _, one in results) for number in range(len(calls))]
    sizes = [10 * len(call) + 11 + 7 * used for call, used in zip(calls, uses, strict=True)]
    base = START + HEADERS + sum(sizes) + len(LAST)
    code, end = b"", sum(sizes)
    for number, call in enumerate(values):
        for door, one, placed in zip((b"\x48\xb8", *REGISTERS), call, places[number], strict=False):
            assert isinstance(one, int)
            code += door + struct.pack("<q", one + base if placed else one)
        code += b"\x0f\x05\x48\x85\xc0"  # syscall; test rax, rax
        code += b"\x0f\x88" + struct.pack("<i", end - len(code) - 6)  # js to the end
        for at, one in results:
            if one == Of(number):
                code += b"\x89\x04\x25" + struct.pack("<I", base + at)
    for at, one in links:
        data[at : at + 8] = struct.pack("<Q", base + one)
    return _file(code + LAST + bytes(data))
