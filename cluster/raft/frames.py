"""A file of checksummed frames: appended and synced, or replaced as a whole. What the journal stands on.

A frame is magic, number, length, CRC-32 of all that and of the payload. A bad frame at the end is a write
that was torn by a crash: nobody was told of it, so it is dropped. A bad frame with a good one behind it is
damage: the file is refused.
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from cluster.errors import Error
from cluster.failpoints import hit
from cluster.raft.background import SYNC_EVERY, Spawn, let_go, unhurried

log = logging.getLogger(__name__)

MAGIC = b"RJF1"
HEAD = struct.Struct("<4sQI")  # magic, number, length of the payload
CHECKSUM = struct.Struct("<I")
GROW_BY = 4 << 20  # bytes allocated ahead: a full disk is ENOSPC here, never SIGBUS or a short write later


class Damaged(Error):
    """A file of the Raft log or state cannot be believed; the member must be removed and joined again."""

    kind = "internal"


class FrameFile:
    """Not thread-safe. Every OSError means that it is unknown what is on disk: the caller must stop."""

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path = path
        self.size = 0  # bytes of valid frames
        self.syncs = 0
        self._fd = -1
        self._number = number  # of the last frame
        self._allocated = 0
        self._rewriting: _Rewriting | None = None

    def load(self) -> list[bytes]:
        """Payloads of all frames. Raises Damaged. The file is not kept open: `replace` must follow.

        A frame that was read may sit in the page cache only, left there by a failed sync of a process
        before us, so whatever is kept must be written again.
        """
        content = self.path.read_bytes()
        payloads: list[bytes] = []
        offset = 0
        while (frame := _frame_at(content, offset)) is not None:
            number, payload = frame
            if payloads and number != self._number + 1:
                break
            self._number = number
            payloads.append(payload)
            offset += HEAD.size + CHECKSUM.size + len(payload)
        if not payloads:
            raise Damaged(f"{self.path}: the first frame is damaged")
        self._refuse_good_frame_after(content, offset)
        return payloads

    def _refuse_good_frame_after(self, content: bytes, offset: int) -> None:
        position = content.find(MAGIC, offset)
        while position >= 0:
            frame = _frame_at(content, position)
            if frame is not None and frame[0] > self._number:
                raise Damaged(f"{self.path}: frame {self._number + 1} at byte {offset} is damaged")
            position = content.find(MAGIC, position + 1)

    def append(self, payload: bytes) -> None:
        """On disk when it returns. Raises OSError."""
        self._write(payload)
        self._sync()
        if self._rewriting is not None:
            self._rewriting.late.append(payload)

    def replace(self, payloads: Iterable[bytes]) -> None:
        """Make these the only frames; a crash leaves the old file or the new one. Raises OSError."""
        self._abandon()
        with closing(self._fresh()) as fresh:
            fresh.create(payloads)
            self._become(fresh)

    def rewrite(self, payloads: Iterable[bytes], spawn: Spawn) -> None:
        """Begin to `replace`; appending goes on meanwhile. It counts once `settle` finds it done.

        `payloads` must stand for all frames up to now; `spawn`'s thread goes through them.
        """
        self._abandon()
        self._rewriting = _Rewriting(self._fresh(), payloads, spawn)

    @property
    def is_rewriting(self) -> bool:
        return self._rewriting is not None

    def settle(self) -> None:
        """Go on with the rewritten file, if it is ready. If it failed, the old one stays. Raises OSError."""
        rewriting = self._rewriting
        if rewriting is None or not rewriting.done:
            return
        self._rewriting = None
        with closing(rewriting.fresh) as fresh:
            if rewriting.failure is not None:
                log.error("%s: %s", self.path, rewriting.failure)  # there is nothing more to know
                return
            for payload in rewriting.late:
                fresh._write(payload)
            fresh._sync()
            self._become(fresh)

    def _fresh(self) -> "FrameFile":
        return FrameFile(self.path.with_suffix(".new"), self._number)

    def create(self, payloads: Iterable[bytes]) -> None:
        """A new file with these frames, synced; its name is not. Raises OSError."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        synced = 0
        for payload in payloads:
            self._write(payload)
            if self.size - synced > SYNC_EVERY:
                self._sync()
                synced = self.size
        if self.size > synced:
            self._sync()

    def _become(self, fresh: "FrameFile") -> None:
        hit("journal.rename")
        fresh.path.rename(self.path)
        sync_folder(self.path.parent)
        if self._fd >= 0:
            let_go(self._fd)
        self._fd, fresh._fd = fresh._fd, -1
        self.size, self._allocated, self._number = fresh.size, fresh._allocated, fresh._number
        self.syncs += fresh.syncs

    def _write(self, payload: bytes) -> None:
        head = self._head(payload)
        end = self.size + len(head) + len(payload)
        if end > self._allocated:
            grown = (end // GROW_BY + 1) * GROW_BY
            os.posix_fallocate(self._fd, self._allocated, grown - self._allocated)
            self._allocated = grown
        hit("journal.write")
        if os.pwritev(self._fd, [head, payload], self.size) != end - self.size:
            raise OSError(f"{self.path}: short write")
        self.size = end

    def _sync(self) -> None:
        hit("journal.sync")
        os.fdatasync(self._fd)
        self.syncs += 1

    def close(self) -> None:
        self._abandon()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _abandon(self) -> None:
        """What is being rewritten will not count; its thread must be done with the file."""
        if self._rewriting is not None:
            self._rewriting.join()
            self._rewriting.fresh.close()
            self._rewriting = None

    def _head(self, payload: bytes) -> bytes:
        """What stands before it as the next frame."""
        self._number += 1
        head = HEAD.pack(MAGIC, self._number, len(payload))
        return head + CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(head)))


class _Rewriting:
    """A file that is to replace another, and what was appended to that meanwhile."""

    def __init__(self, fresh: FrameFile, payloads: Iterable[bytes], spawn: Spawn) -> None:
        self.fresh = fresh
        self.late: list[bytes] = []
        self.done = False
        self.failure: OSError | None = None
        self._payloads = payloads
        self.join = spawn(self._work)

    def _work(self) -> None:
        try:
            self.fresh.create(unhurried(self._payloads))
        except OSError as failure:
            self.failure = failure
        self.done = True


def _frame_at(content: bytes, offset: int) -> tuple[int, bytes] | None:
    start = offset + HEAD.size + CHECKSUM.size
    if start > len(content):
        return None
    magic, number, length = HEAD.unpack_from(content, offset)
    if magic != MAGIC or start + length > len(content):
        return None
    payload = content[start : start + length]
    (checksum,) = CHECKSUM.unpack_from(content, offset + HEAD.size)
    if zlib.crc32(payload, zlib.crc32(content[offset : offset + HEAD.size])) != checksum:
        return None
    return number, payload


def sync_folder(folder: Path) -> None:
    """A rename is durable only after this."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_synced(path: Path, content: bytes) -> None:
    """A small file: after a crash the old one or the new one. Raises OSError."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    sync_folder(path.parent)
