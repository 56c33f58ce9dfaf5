"""Calls that need nothing but the caller's paths: `mknod` of harmless devices, `setxattr` for overlays.

Each takes the call's arguments, in a process that ends after it. They return the call's value, raise OSError
for what the caller is to be told, or `Leave`.
"""

import contextlib
import ctypes
import errno
import os
import stat

from lxdpy.host import mounts
from lxdpy.host.companion.process import Task
from lxdpy.host.intercept.caller import (
    CAP_DAC_OVERRIDE,
    CAP_MKNOD,
    CAP_SYS_ADMIN,
    CAP_SYS_CHROOT,
    HERE,
    Caller,
    be_like,
    may,
)

DEVICES = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)})
"""Character devices: null, zero, full, random, urandom, tty, console; LXD's. Whiteouts need nobody's help."""
OPAQUE = "trusted.overlay.opaque"
MAKING = 1 << CAP_MKNOD | 1 << CAP_DAC_OVERRIDE
MOUNTING = 1 << CAP_SYS_ADMIN | 1 << CAP_SYS_CHROOT


class Leave(Exception):
    """The kernel is to make the call itself, with the caller's rights."""


Arguments = tuple[int, ...]


def mknod(caller: Caller, arguments: Arguments, task: Task) -> int:
    return mknodat(caller, (HERE, *arguments), task)


def mknodat(caller: Caller, arguments: Arguments, task: Task) -> int:
    at, path, mode, device = arguments[:4]
    number = os.major(device & 0xFFFFFFFF), os.minor(device & 0xFFFFFFFF)
    mode &= 0xFFFF
    if not stat.S_ISCHR(mode) or number not in DEVICES:
        raise Leave
    folder, slash, name = caller.string(path).rpartition("/")
    if name in ("", ".", ".."):
        raise Leave
    start = caller.start_of(at)
    caller.demand(CAP_MKNOD)
    caller.check()

    def parent() -> list[int]:
        found = os.open(folder + slash or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        may(found, os.W_OK | os.X_OK)
        return [found]

    (place,) = caller.look(start, parent)
    _make(caller, place, name, mode, os.makedev(*number), task)
    return 0


def _make(caller: Caller, place: int, name: str, mode: int, device: int, task: Task) -> None:
    """Make the node, or where nodes are dead have the host's mounted: on file systems of the container's own.

    The caller was found to have the right to make files there, by means we may not have.
    """
    status = caller.status()
    be_like(status, MAKING | MOUNTING)
    os.mknod(name, mode, device, dir_fd=place)
    if _opens(place, name, device):
        return
    os.unlink(name, dir_fd=place)
    kind = f"{os.major(device)}.{os.minor(device)}.{mode & ~status.umask:o}"
    staged = f"{task['nodes']}/{kind}.{status.uid}.{status.gid}"
    with contextlib.suppress(FileExistsError):
        os.mknod(staged, mode, device)
    tree = mounts.open_tree(staged)
    file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=place)
    try:
        mounts.setns(caller.namespace("mnt"), mounts.CLONE_NEWNS)
        mounts.attach_to(tree, file)
    except OSError:
        os.unlink(name, dir_fd=place)
        raise


def _opens(place: int, name: str, device: int) -> bool:
    """Whether the node just made can be opened, as far as the file system is concerned."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        if os.fstat(handle).st_rdev != device:
            return True  # it was replaced already: not ours any more
        os.close(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno != errno.EACCES
    finally:
        os.close(handle)
    return True


def setxattr(caller: Caller, arguments: Arguments, task: Task) -> int:
    return _set_opaque(caller, arguments, os.O_PATH)


def lsetxattr(caller: Caller, arguments: Arguments, task: Task) -> int:
    return _set_opaque(caller, arguments, os.O_PATH | os.O_NOFOLLOW)


def _set_opaque(caller: Caller, arguments: Arguments, how: int) -> int:
    path = caller.string(arguments[0])
    flags = _flags(caller, arguments)
    if not path:
        raise Leave
    start = caller.start_of(HERE)
    caller.check()

    def file() -> list[int]:
        found = os.open(path, how | os.O_CLOEXEC)
        may(found, os.W_OK)
        return [found]

    (found,) = caller.look(start, file)
    return _mark(found, flags)


def fsetxattr(caller: Caller, arguments: Arguments, task: Task) -> int:
    flags = _flags(caller, arguments)
    opened = caller.file(arguments[0])
    start = caller.start_of(HERE)
    caller.check()

    def file() -> list[int]:
        may(opened, os.W_OK)
        return [opened]

    (found,) = caller.look(start, file)
    return _mark(found, flags)


def _flags(caller: Caller, arguments: Arguments) -> int:
    """Of a call that marks a folder of an overlay as opaque; `Leave` for any other."""
    name, value, size, flags = arguments[1:5]
    if size != 1 or caller.string(name) != OPAQUE or caller.data(value, 1) != b"y":
        raise Leave
    caller.demand(CAP_SYS_ADMIN)
    return ctypes.c_int(flags & 0xFFFFFFFF).value


def _mark(file: int, flags: int) -> int:
    os.setxattr(f"/proc/self/fd/{file}", OPAQUE, b"y", flags)
    return 0
