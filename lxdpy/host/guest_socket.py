"""The host's side of `/dev/lxd/sock`: a folder for each container, mounted into it, and the socket in there.

The folder is the host root's, so no container can write to it, and stays for as long as its container runs:
a daemon that starts anew puts another socket in the same place. The folders are in a file system of their
own, since a container sees where in its file system a mount begins, and that is no path of the host then. All
of it blocks, for a moment.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path

from lxdpy.host import mounts
from lxdpy.host.storage.layout import mounted

FOLDERS = "devlxd"  # below $LXD_DIR, as in LXD
NAME = "sock"
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
OPTIONS = "mode=0711,size=1m"  # folders and sockets take none of the size
BACKLOG = 16  # connections that wait in the kernel; the next connect fails or waits, inside
CREDENTIALS = struct.Struct("iII")  # SO_PEERCRED: pid, uid, gid


def folder_of(lxd_dir: Path, volume: str) -> Path:
    return lxd_dir / FOLDERS / volume


def set_apart(lxd_dir: Path) -> None:
    """Have a file system for the folders. Idempotent; it outlives the daemon, as containers do."""
    top = lxd_dir / FOLDERS
    top.mkdir(mode=0o711, exist_ok=True)
    if not mounted(top):
        mounts.mount("none", str(top), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, OPTIONS)


def make_folder(folder: Path) -> None:
    """Idempotent. Others than root may pass: whom the folder is mounted for is what counts."""
    for path, mode in ((folder.parent, 0o711), (folder, 0o755)):
        path.mkdir(mode=mode, exist_ok=True)
        path.chmod(mode)


def listen(folder: Path) -> socket.socket:
    """A new socket in the folder, in place of what a daemon before us left.

    Everybody inside may connect, as with LXD: those who are not root are told that it is not for them.
    """
    make_folder(folder)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=handle)
        sock.bind(f"/proc/self/fd/{handle}/{NAME}")  # the folder's own path may be too long for an address
        os.chmod(NAME, 0o666, dir_fd=handle)  # noqa: S103 - only its container can reach it
        sock.setblocking(False)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(handle)
    return sock


def remove(folder: Path) -> None:
    """Of a container that has ended. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        (folder / NAME).unlink()
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def uid_of_peer(connection: socket.socket) -> int:
    """The host's id of who connected, as of then."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(raw)[1])
