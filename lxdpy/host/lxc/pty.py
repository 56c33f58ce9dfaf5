"""Terminals of a container: made in its own devpts, so `tty` and `ls -l /dev/pts` tell the truth inside.

For children of the helper: the container chooses what the files are that are opened here, and one of a file
system of its own may never answer. Links stay within its root, and what is not the wanted device is not
opened. Raises OSError.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable

from lxdpy.host.mounts import open_in_root

TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441  # asm-generic/ioctls.h
PTMX = os.makedev(5, 2)
PTS_MAJORS = range(136, 144)  # Documentation/admin-guide/devices.txt
NOBODY = 65_534


def open_pty(init: int, uid: int = 0, gid: int = 0) -> tuple[int, int]:
    """Master and slave of a new terminal in the container of process `init`, owned by these ids inside."""
    owner = (_host_id(init, "uid_map", uid), _host_id(init, "gid_map", gid))
    master = _open_device(init, "/dev/pts/ptmx", lambda device: device == PTMX)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, *owner)
    os.fchmod(slave, 0o620)
    return master, slave


def open_console(init: int) -> int:
    """The terminal that is the console of the container of process `init`."""
    return _open_device(init, "/dev/console", lambda device: os.major(device) in PTS_MAJORS)


def _open_device(init: int, path: str, is_it: Callable[[int], bool]) -> int:
    root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    status = os.fstat(found)
    if not stat.S_ISCHR(status.st_mode) or not is_it(status.st_rdev):
        raise OSError(errno.ENOTTY, f"{path} of the instance is not a terminal's device")
    return os.open(f"/proc/self/fd/{found}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def resize(master: int, rows: int, columns: int) -> None:
    """Tell the terminal its size; programs get SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def leave_as_is(terminal: int) -> None:
    """Have what is written to it read as it is: it went through a terminal already."""
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


def _host_id(init: int, file: str, inside: int) -> int:
    with open(f"/proc/{init}/{file}") as lines:
        for line in lines:
            first, host, length = map(int, line.split())
            if first <= inside < first + length:
                return host + inside - first
    return NOBODY


def sockets() -> set[int]:
    """Descriptors of this process that are sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
    return found
