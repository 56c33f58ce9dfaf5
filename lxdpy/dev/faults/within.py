"""What is done to a member's files. Runs in its mount namespace: `python -m lxdpy.dev.faults.within VERB`."""

import fcntl
import os
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

BALLAST = "ballast"  # the file that takes all space
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, linux/ext4.h
WITHOUT_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH: as if the power were gone
HEAD = struct.Struct("<4sQII")  # the journal's frames: magic, number, length of the payload, checksum


def fill(folder: Path) -> None:
    """Leave no byte free, also after a power cut."""
    with (folder / BALLAST).open("wb") as file:
        space = os.statvfs(folder)
        size = space.f_bavail * space.f_frsize
        while size > space.f_frsize:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            except OSError:
                size //= 2  # some of it goes into the tables of the file system
            else:
                space = os.statvfs(folder)
                size = space.f_bavail * space.f_frsize
        os.fsync(file.fileno())


def free(folder: Path) -> None:
    """Synced: or the ballast would be back after the next power cut."""
    (folder / BALLAST).unlink()
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cut(folder: Path) -> None:
    """What is not on the disk yet will never be. All that the folder's file system is asked for now fails."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    finally:
        os.close(handle)


def spoil(folder: Path) -> None:
    """Let the file system find an error in itself: nothing can be written from now on."""
    device = os.stat(folder).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    Path("/sys/fs/ext4", name, "trigger_fs_error").write_text("1")


def tear(folder: Path, seed: str) -> None:
    """Leave behind the log what a crash leaves that strikes while a frame is written.

    Never less than what is there: that was synced, and may have been acknowledged.
    """
    dice = random.Random(seed)  # noqa: S311  # must be repeatable
    path = folder / "raft" / "journal"
    content = path.read_bytes()
    end, last = frames_end(content)
    frame = HEAD.pack(b"RJF1", last + 1, dice.randint(50, 5000), dice.getrandbits(32)) + dice.randbytes(50)
    torn = dice.choice((frame, frame[: dice.randint(1, HEAD.size)], dice.randbytes(300), b""))
    with path.open("r+b") as file:
        file.seek(end)
        file.write(torn)
        if dice.random() < 0.5:
            file.truncate()


def frames_end(content: bytes) -> tuple[int, int]:
    """Where the last whole frame ends, and its number."""
    end, last = 0, 0
    while end + HEAD.size <= len(content):
        magic, number, length, _ = HEAD.unpack_from(content, end)
        if magic != b"RJF1" or (end and number != last + 1) or end + HEAD.size + length > len(content):
            break
        end, last = end + HEAD.size + length, number
    return end, last


VERBS: dict[str, Callable[..., None]] = {
    "fill": fill,
    "free": free,
    "cut": cut,
    "spoil": spoil,
    "tear": tear,
}

if __name__ == "__main__":
    VERBS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
