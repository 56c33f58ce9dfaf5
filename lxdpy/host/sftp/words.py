"""Packets of SFTP: their numbers, their parts, and what is told of a file. As `server` runs in the helper,
nothing is imported that costs memory.
"""

import errno
import os
import stat
import struct
from typing import NamedTuple

VERSION = 3
PART = 1 << 18  # bytes of a file in one packet at most; what Go's and OpenSSH's clients ask for at most
LIMIT = PART + (1 << 15)  # bytes of a packet: names may be long too

INIT, VERSION_REPLY = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(3, 11)
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(11, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8

FLAG_READ, FLAG_WRITE, FLAG_APPEND, FLAG_CREATE, FLAG_TRUNCATE, FLAG_EXCLUSIVE = (1 << n for n in range(6))
HAS_SIZE, HAS_IDS, HAS_MODE, HAS_TIMES, HAS_MORE = 1, 2, 4, 8, 1 << 31

STATUS_OF = {errno.ENOENT: NO_SUCH_FILE, errno.EACCES: PERMISSION_DENIED, errno.EPERM: PERMISSION_DENIED}
ERRNO = "x-"  # a language tag of ours begins so, and goes on with the error's name: statuses are too few


class Attributes(NamedTuple):
    """What is known of a file, or to be changed; None: not."""

    size: int | None = None
    ids: tuple[int, int] | None = None
    mode: int | None = None
    """With the kind of file, as in st_mode."""
    times: tuple[int, int] | None = None
    """Of last access and change, unix seconds."""

    @property
    def kind(self) -> str:
        """In LXD's words; what is neither file nor directory nor symlink is told as a file."""
        kinds = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
        return kinds.get(stat.S_IFMT(self.mode or 0), "file")

    def packed(self) -> bytes:
        flags, parts = 0, b""
        if self.size is not None:
            flags, parts = flags | HAS_SIZE, parts + struct.pack(">Q", self.size)
        if self.ids is not None:
            flags, parts = flags | HAS_IDS, parts + struct.pack(">II", *self.ids)
        if self.mode is not None:
            flags, parts = flags | HAS_MODE, parts + struct.pack(">I", self.mode)
        if self.times is not None:
            wrapped = (time & 0xFFFFFFFF for time in self.times)
            flags, parts = flags | HAS_TIMES, parts + struct.pack(">II", *wrapped)
        return struct.pack(">I", flags) + parts


def attributes_of(status: os.stat_result) -> Attributes:
    times = (int(status.st_atime), int(status.st_mtime))
    return Attributes(status.st_size, (status.st_uid, status.st_gid), status.st_mode, times)


class Malformed(Exception):
    """A packet that ends too early."""


class Parts:
    """The parts of a packet, in order."""

    def __init__(self, packet: bytes) -> None:
        self._data = memoryview(packet)
        self._at = 0

    def take(self, size: int) -> memoryview:
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise Malformed
        self._at += size
        return part

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(4))

    def long(self) -> int:
        return int.from_bytes(self.take(8))

    def text(self) -> bytes:
        return bytes(self.take(self.number()))

    def data(self) -> memoryview:
        """As `text`, but no copy: of a file."""
        return self.take(self.number())

    def attributes(self) -> Attributes:
        flags = self.number()
        found = Attributes(
            self.long() if flags & HAS_SIZE else None,
            (self.number(), self.number()) if flags & HAS_IDS else None,
            self.number() if flags & HAS_MODE else None,
            (self.number(), self.number()) if flags & HAS_TIMES else None,
        )
        if flags & HAS_MORE:
            for _ in range(2 * self.number()):
                self.text()
        return found


def number(value: int) -> bytes:
    return value.to_bytes(4)


def text(value: bytes) -> bytes:
    return number(len(value)) + value


def packet(kind: int, *parts: bytes, data: bytes | memoryview | None = None) -> bytes:
    """With `data`, which is a file's and large, all that comes before it."""
    end = b"".join(parts) + (number(len(data)) if data is not None else b"")
    size = 1 + len(end) + (len(data) if data is not None else 0)
    return number(size) + bytes((kind,)) + end


def status(code: int, message: str = "", tag: str = "") -> bytes:
    """The body of a STATUS, without the id."""
    return number(code) + text(message.encode()) + text(tag.encode())


def status_of(error: OSError) -> bytes:
    name = errno.errorcode.get(error.errno or 0, "EIO")
    code = STATUS_OF.get(error.errno or 0, FAILURE)
    return status(code, (error.strerror or "failure").lower(), ERRNO + name)
