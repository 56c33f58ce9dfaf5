"""Protocol buffers' wire form, as much as LXD's migrations need. Source: protobuf.dev, "Encoding"."""

from collections.abc import Iterable, Mapping

from cluster.errors import Invalid

Value = int | bytes | str | bool
Fields = Mapping[int, list[int | bytes]]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
WIDTH = 64  # bits of the widest number


class Malformed(Invalid):
    """These bytes are no such message."""


def encode(fields: Iterable[tuple[int, Value | None]]) -> bytes:
    """Of numbers and values, in that order; None is left out."""
    return b"".join(_field(number, value) for number, value in fields if value is not None)


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value % (1 << WIDTH))
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def decode(data: bytes) -> Fields:
    """The values of each field in their order; fields of other wire types are left out. Raises Malformed."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        kind, number = tag & 7, tag >> 3
        if kind == VARINT:
            value, at = _number(data, at)
            found.setdefault(number, []).append(value)
            continue
        size, at = _number(data, at) if kind == BYTES else (_width(kind), at)
        if at + size > len(data):
            raise Malformed("A message of a migration is cut short")
        if kind == BYTES:
            found.setdefault(number, []).append(data[at : at + size])
        at += size
    return found


def _width(kind: int) -> int:
    if kind not in (FIXED64, FIXED32):
        raise Malformed("A message of a migration has a field of an unknown kind")
    return 8 if kind == FIXED64 else 4


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number there, and where it ends. Raises Malformed."""
    value = 0
    for shift in range(0, WIDTH + 6, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % (1 << WIDTH), at
    raise Malformed("A message of a migration is cut short")


def number(fields: Fields, which: int, default: int = 0) -> int:
    """The last one of that field, signed. Raises Malformed if it is none."""
    value = fields[which][-1] if which in fields else default
    if not isinstance(value, int):
        raise Malformed("A message of a migration has text in place of a number")
    return value - (1 << WIDTH) if value >= 1 << (WIDTH - 1) else value


def texts(fields: Fields, which: int) -> list[str]:
    """Raises Malformed."""
    try:
        return [part.decode() for part in parts(fields, which)]
    except UnicodeDecodeError:
        raise Malformed("A message of a migration has a text that is not UTF-8") from None


def text(fields: Fields, which: int) -> str:
    """The last one, or "". Raises Malformed."""
    return (texts(fields, which) or [""])[-1]


def parts(fields: Fields, which: int) -> list[bytes]:
    """Raises Malformed for numbers."""
    found = [value for value in fields.get(which, ()) if isinstance(value, bytes)]
    if len(found) != len(fields.get(which, ())):
        raise Malformed("A message of a migration has a number in place of text")
    return found
