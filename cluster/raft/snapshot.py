"""Snapshots of the state on disk, as they are sent to members that fell behind.

Magic, log index and term of the last entry inside (at fixed places, so that a receiver can tell from the
first bytes whether it needs it), then checksummed parts: the header, chunks of the dump, an empty part.
Chunks are deflated: zlib works without the GIL, and a tenth of the bytes crosses the network.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from cluster.failpoints import hit
from cluster.raft.background import SYNC_EVERY, let_go, unhurried
from cluster.raft.frames import Damaged, sync_folder

MAGIC = b"RSNP0001"
FIXED = struct.Struct("<8sQQ")  # magic, index, term
PART = struct.Struct("<II")  # length, CRC-32 chained over all parts so far

Entry = tuple[bytes, int, int]  # command, index, term: the library's form


class Header(msgspec.Struct, frozen=True):
    """What the library and the journal need to go on from here."""

    last: Entry  # last entry inside
    previous: Entry
    voters: list[str]  # as of `last`


def write(path: Path, header: Header, chunks: Iterable[bytes]) -> None:
    """Write and sync; `publish` makes it count. May run in any thread. Raises OSError."""
    with path.open("wb") as file:
        file.write(FIXED.pack(MAGIC, header.last[1], header.last[2]))
        checksum = waiting = 0
        for part in unhurried(_parts(header, chunks)):
            checksum = zlib.crc32(part, checksum)
            file.write(PART.pack(len(part), checksum))
            file.write(part)
            waiting += len(part)
            if waiting > SYNC_EVERY:
                file.flush()
                os.fdatasync(file.fileno())
                waiting = 0
        file.flush()
        os.fsync(file.fileno())


def _parts(header: Header, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield msgspec.msgpack.encode(header)
    for chunk in chunks:
        yield zlib.compress(chunk, 1)
    yield b""


def publish(written: Path, path: Path) -> None:
    """Replace the snapshot by a synced one. Raises OSError."""
    hit("snapshot.rename")
    replaced = os.open(path, os.O_RDONLY) if path.exists() else None
    try:
        written.rename(path)
        sync_folder(path.parent)
    finally:
        if replaced is not None:
            let_go(replaced)


def replace_checked(received: Path, path: Path) -> None:
    """Replace the snapshot by a received file, if that is whole. Raises Damaged, OSError."""
    read(received)
    with received.open("rb") as file:
        os.fsync(file.fileno())
    publish(received, path)


def read(path: Path) -> tuple[Header, Iterator[bytes]]:
    """Header and chunks, after all checksums were found right. Raises Damaged, OSError."""
    content = path.read_bytes()
    if len(content) < FIXED.size or content[: len(MAGIC)] != MAGIC:
        raise Damaged(f"{path}: not a snapshot")
    spans: list[tuple[int, int]] = []
    offset, checksum = FIXED.size, 0
    while not spans or spans[-1][0] != spans[-1][1]:
        if offset + PART.size > len(content):
            raise Damaged(f"{path}: cut off at byte {len(content)}")
        length, expected = PART.unpack_from(content, offset)
        start, offset = offset + PART.size, offset + PART.size + length
        checksum = zlib.crc32(memoryview(content)[start:offset], checksum)
        if offset > len(content) or checksum != expected:
            raise Damaged(f"{path}: damaged at byte {start}")
        spans.append((start, offset))
    return _decode(path, content, spans[:-1])


def _decode(path: Path, content: bytes, spans: list[tuple[int, int]]) -> tuple[Header, Iterator[bytes]]:
    try:
        header = msgspec.msgpack.decode(content[slice(*spans[0])], type=Header)
    except (msgspec.MsgspecError, IndexError) as unreadable:
        raise Damaged(f"{path}: {unreadable}") from unreadable
    if FIXED.unpack_from(content) != (MAGIC, header.last[1], header.last[2]):
        raise Damaged(f"{path}: header and first bytes differ")
    return header, (zlib.decompress(content[start:end]) for start, end in spans[1:])


def peek(first_bytes: bytes) -> tuple[int, int]:
    """(index, term) from the first chunk of a transfer; (0, 0) if it is no snapshot."""
    if len(first_bytes) < FIXED.size:
        return 0, 0
    magic, index, term = FIXED.unpack_from(first_bytes)
    return (index, term) if magic == MAGIC else (0, 0)
