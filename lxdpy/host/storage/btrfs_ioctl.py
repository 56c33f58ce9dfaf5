"""Subvolumes, snapshots and quotas of btrfs by ioctl: a program for each would take ten times as long.

Source: linux/btrfs.h and btrfs_tree.h. All calls block until the kernel has made a transaction of it (1.5 ms,
50 ms on a busy disk), without the GIL: call them in a thread.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096  # bytes of most argument structs
SUBVOLUME_INODE = 256  # of the root folder of every subvolume
READ_ONLY = 2  # BTRFS_SUBVOL_RDONLY
ROOT_LEVEL, QUOTA_TREE = 5, 8  # tree ids
QGROUP_INFO = 242  # key type
QUOTA_ENABLE, QUOTA_ENABLE_SIMPLE = 1, 4


def _request(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0x94 << 8 | number


SNAP_CREATE_V2 = _request(1, 23, PAGE)
SUBVOL_CREATE_V2 = _request(1, 24, PAGE)
SNAP_DESTROY_V2 = _request(1, 63, PAGE)
SUBVOL_GETFLAGS = _request(2, 25, 8)
SUBVOL_SETFLAGS = _request(1, 26, 8)
TREE_SEARCH = _request(3, 17, PAGE)
INO_LOOKUP = _request(3, 18, PAGE)
QUOTA_CTL = _request(3, 40, 16)
QGROUP_LIMIT = _request(2, 43, 48)
GET_SUBVOL_ROOTREF = _request(3, 61, PAGE)
INO_LOOKUP_USER = _request(3, 62, PAGE)

_VOLUME = struct.Struct("qQQ4Q4040s")  # btrfs_ioctl_vol_args_v2: fd, transid, flags, unused, name
_ROOTREFS = 255  # entries in one answer


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
    """The argument as the kernel left it. A bytearray, because fcntl takes no bytes of more than 1024."""
    buffer = bytearray(argument)
    fcntl.ioctl(descriptor, request, buffer, True)
    return bytes(buffer)


def _volume(name: str, source: int = 0, flags: int = 0) -> bytes:
    return _VOLUME.pack(source, 0, flags, 0, 0, 0, 0, os.fsencode(name))


def is_subvolume(path: Path) -> bool:
    """Whether a folder known to be on btrfs is the root of a subvolume."""
    try:
        return path.lstat().st_ino == SUBVOLUME_INODE
    except FileNotFoundError:
        return False


def create(path: Path) -> None:
    """Raises OSError with ENOTTY where there is no btrfs."""
    with _opened(path.parent) as parent:
        _ioctl(parent, SUBVOL_CREATE_V2, _volume(path.name))


def snapshot(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Subvolumes inside `source` are empty folders in `target`: see `children`."""
    with _opened(target.parent) as parent, _opened(source) as origin:
        _ioctl(parent, SNAP_CREATE_V2, _volume(target.name, origin, READ_ONLY if read_only else 0))


def destroy(path: Path) -> None:
    """Raises OSError with ENOTEMPTY while there are subvolumes inside."""
    with _opened(path.parent) as parent:
        _ioctl(parent, SNAP_DESTROY_V2, _volume(path.name))


def is_read_only(path: Path) -> bool:
    with _opened(path) as volume:
        flags: int = struct.unpack("Q", _ioctl(volume, SUBVOL_GETFLAGS, bytes(8)))[0]
    return bool(flags & READ_ONLY)


def set_read_only(path: Path, value: bool) -> None:
    with _opened(path) as volume:
        _ioctl(volume, SUBVOL_SETFLAGS, struct.pack("Q", READ_ONLY if value else 0))


def tree_id(path: Path) -> int:
    """Of the subvolume that `path` lies in; its qgroup is 0/that."""
    with _opened(path) as folder:
        found: int = struct.unpack_from("Q", _ioctl(folder, INO_LOOKUP, _lookup(0, SUBVOLUME_INODE)))[0]
    return found


def _lookup(tree: int, inode: int) -> bytes:
    return struct.pack("QQ4080s", tree, inode, b"")


def children(path: Path) -> list[Path]:
    """Subvolumes directly inside the subvolume `path`, relative to it."""
    found: list[Path] = []
    lowest = 0
    with _opened(path) as volume:
        while True:
            answer, more = _references(volume, lowest)
            count = answer[8 + _ROOTREFS * 16]
            references = [struct.unpack_from("QQ", answer, 8 + 16 * index) for index in range(count)]
            found += [_named(volume, tree, folder) for tree, folder in references]
            if not more:
                return found
            lowest = references[-1][0] + 1


def _references(volume: int, lowest: int) -> tuple[bytes, bool]:
    """One page of the children's tree ids and folders; whether there are more."""
    buffer = bytearray(struct.pack("Q4088s", lowest, b""))
    try:
        fcntl.ioctl(volume, GET_SUBVOL_ROOTREF, buffer, True)
    except OSError as error:
        if error.errno != errno.EOVERFLOW:
            raise
        return bytes(buffer), True
    return bytes(buffer), False


def _named(volume: int, tree: int, folder: int) -> Path:
    answer = _ioctl(volume, INO_LOOKUP_USER, struct.pack("QQ256s3824s", folder, tree, b"", b""))
    name, path = answer[16:272].split(b"\0")[0], answer[272:].split(b"\0")[0]
    return Path(os.fsdecode(path), os.fsdecode(name))


def enable_quota(mount: Path) -> None:
    """Simple quotas (Linux 6.7, cheap, count only what a volume wrote itself), else full ones."""
    with _opened(mount) as top:
        try:
            _ioctl(top, QUOTA_CTL, struct.pack("QQ", QUOTA_ENABLE_SIMPLE, 0))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            _ioctl(top, QUOTA_CTL, struct.pack("QQ", QUOTA_ENABLE, 0))


def limit(path: Path, size: int) -> None:
    """Let the subvolume refer to at most `size` bytes; 0 lifts the limit. OSError if quotas are off."""
    no_limit = 2**64 - 1
    with _opened(path) as volume:
        _ioctl(volume, QGROUP_LIMIT, struct.pack("QQQQQQ", tree_id(path), 1, size or no_limit, 0, 0, 0))


def referred(path: Path) -> int | None:
    """Bytes counted for the subvolume at the last commit (30 s ago at most); None if quotas are off."""
    wanted = tree_id(path)
    key = struct.pack(
        "7Q4I4Q", QUOTA_TREE, 0, 0, wanted, wanted, 0, 2**64 - 1, QGROUP_INFO, QGROUP_INFO, 1, 0, 0, 0, 0, 0
    )
    with _opened(path) as volume:
        try:
            answer = _ioctl(volume, TREE_SEARCH, key.ljust(PAGE, b"\0"))
        except FileNotFoundError:
            return None
    if not struct.unpack_from("I", answer, 64)[0]:
        return None
    referred_bytes: int = struct.unpack_from("Q", answer, 104 + 32 + 8)[0]  # key, item header, generation
    return referred_bytes
