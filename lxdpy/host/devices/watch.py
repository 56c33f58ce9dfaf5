"""Device files, devices and processes of the host, watched for those that wait for them to come or to go.

By inotify where files are made and removed, and by the kernel's messages, as /sys tells of no changes. Both
are hints: whoever is called looks for himself.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable

from lxdpy.host.inotify import Inotify
from lxdpy.host.uevents import Uevents

log = logging.getLogger(__name__)

SUBSYSTEMS = frozenset(
    {"usb", "tty", "hidraw", "input", "block", "infiniband", "misc", "sound", "video4linux"}
)
CALM = 0.05  # seconds from a hint to the call: devices come with many messages, their files a moment later
BREATH = 1.0  # seconds until a process that ended is told of: it may end again as soon as it is started


class DeviceWatch:
    """Calls `changed(key)` on the loop when one of a key's paths may have come or gone."""

    def __init__(self, breath: float = BREATH) -> None:
        self._breath = breath
        self.changed: Callable[[str], None] = lambda key: None
        self._paths: dict[str, tuple[str, ...]] = {}
        self._folders: dict[int, str] = {}  # by inotify's number
        self._files: Inotify | None = None
        self._kernel: Uevents | None = None
        self._due: set[str] = set()
        self._processes: dict[int, int] = {}  # pid: pidfd
        self._told_later: set[asyncio.TimerHandle] = set()  # of processes that have ended

    def watch(self, key: str, paths: Iterable[str]) -> None:
        """These paths of `key` from now on, no others; without any, nothing is called for it any more."""
        wanted = tuple(paths)
        if wanted == self._paths.get(key, ()):
            return
        self._paths.pop(key, None)
        if wanted:
            self._paths[key] = wanted
            self._open()
        self._follow()

    def watch_process(self, key: str, pid: int) -> None:
        """Call for `key` when the process has ended. Again is no harm.

        One that has ended already (0, if it is not even known which) is told.
        """
        if pid in self._processes:
            return
        try:
            handle = os.pidfd_open(pid) if pid else -1
        except ProcessLookupError:
            handle = -1
        if handle < 0:
            self._ended(key)
            return
        self._processes[pid] = handle

        def ended() -> None:
            self._close(pid)
            self._ended(key)

        asyncio.get_running_loop().add_reader(handle, ended)

    def _ended(self, key: str) -> None:
        def tell() -> None:
            self._told_later.discard(timer)
            self.changed(key)

        timer = asyncio.get_running_loop().call_later(self._breath, tell)
        self._told_later.add(timer)

    def _close(self, pid: int) -> None:
        handle = self._processes.pop(pid)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)

    def close(self) -> None:
        """Nobody is called from now on."""
        for timer in self._told_later:
            timer.cancel()
        self._told_later.clear()
        for pid in [*self._processes]:
            self._close(pid)
        loop = asyncio.get_running_loop()
        for source in (self._files, self._kernel):
            if source is not None:
                if source.fileno() >= 0:
                    loop.remove_reader(source.fileno())
                source.close()
        self._files = self._kernel = None
        self._paths.clear()

    def _open(self) -> None:
        """At the first need: few hosts have any such device."""
        loop = asyncio.get_running_loop()
        if self._kernel is None:
            self._kernel = Uevents(SUBSYSTEMS)
            if self._kernel.fileno() >= 0:
                loop.add_reader(self._kernel.fileno(), self._told)
        if self._files is None:
            try:
                self._files = Inotify()
            except OSError as error:
                log.warning("device files that come later are not noticed: %s", error)
            else:
                loop.add_reader(self._files.fileno(), self._seen)

    def _follow(self) -> None:
        """Watch the folders that matter by now."""
        if self._files is None:
            return
        numbers: set[int] = set()
        wanted: set[str] = set()
        while wanted != (there := {nearest(path) for paths in self._paths.values() for path in paths}):
            wanted = there  # looked at again, as a folder may have come before it was watched
            numbers = {number for folder in wanted if (number := self._added(folder)) >= 0}
        for number in self._folders.keys() - numbers:
            self._files.remove(number)
            del self._folders[number]

    def _added(self, folder: str) -> int:
        """-1 if it has just gone."""
        assert self._files is not None
        try:
            number = self._files.add(folder)
        except OSError as error:
            log.debug("%s is not watched: %s", folder, error)
            return -1
        self._folders[number] = folder
        return number

    def _told(self) -> None:
        if self._kernel is not None and self._kernel.pending():
            self._soon(self._paths)

    def _seen(self) -> None:
        assert self._files is not None
        numbers = self._files.read()
        folders = {self._folders[number] for number in numbers if number in self._folders}
        lost = -1 in numbers
        self._soon(
            key
            for key, paths in self._paths.items()
            if lost
            or any(os.path.dirname(path).startswith(tuple(folders)) or path in folders for path in paths)
        )
        self._follow()

    def _soon(self, keys: Iterable[str]) -> None:
        if not self._due:
            asyncio.get_running_loop().call_later(CALM, self._call)
        self._due |= {*keys}

    def _call(self) -> None:
        due, self._due = self._due, set()
        for key in sorted(due):
            if key in self._paths:
                self.changed(key)


def nearest(path: str) -> str:
    """The folder in which a path, or the first missing part of it, would appear; a folder is its own."""
    if os.path.isdir(path):
        return path
    folder = os.path.dirname(path)
    while folder != "/" and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder
