"""Folders watched for names that come and go: inotify(7), as Python has no words for it."""

import ctypes
import os
import struct

IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x4, 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
COMINGS = IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF
IN_IGNORED, IN_Q_OVERFLOW = 0x8000, 0x4000
IN_ONLYDIR = 0x01000000
ROOM = 65536  # bytes of events read at once; one has 16 and a name

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One queue of events. All raise OSError, as when fs.inotify.max_user_instances are in use."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        return self._fd

    def add(self, folder: str) -> int:
        """Watch a folder; the number its events have. The same number when it is watched already."""
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(folder), COMINGS | IN_ONLYDIR))

    def remove(self, number: int) -> None:
        """Fine if the folder has gone."""
        _libc.inotify_rm_watch(self._fd, number)

    def read(self) -> set[int]:
        """Numbers of folders in which something came or went; -1: some events were lost. Never waits."""
        found: set[int] = set()
        while True:
            try:
                data = os.read(self._fd, ROOM)
            except BlockingIOError:
                return found
            offset = 0
            while offset < len(data):
                number, mask, _, length = struct.unpack_from("=iIII", data, offset)
                offset += 16 + length
                if not mask & IN_IGNORED:
                    found.add(-1 if mask & IN_Q_OVERFLOW else number)

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "inotify")
    return int(result)
