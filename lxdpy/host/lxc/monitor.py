"""Living containers: found by their monitor's pid, watched by pidfds.

LXC's monitor process is the container's parent. When its first process ends, either the monitor starts it
anew (the container rebooted) or cleans up and ends (it stopped). Both are seen through pidfds, which need no
parentage: a new daemon watches the containers of the old one. LXC's hooks were tried as well; they tell
nothing more, and each costs a shell at every start.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

Event = Literal["started", "stopped", "rebooted"]

PAGE = 4096  # bytes: more than any of these files of /proc has
SEEK_PAUSE = (
    0.01  # seconds between looks for the new first process of a rebooting container; takes 10 to 50 ms
)


@dataclass
class Living:
    """A container that runs. `gone` is set when it has stopped and everything of it is removed."""

    name: str
    monitor: int
    monitor_fd: int
    init: int = 0
    init_fd: int = -1
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def signal(self, number: int) -> None:
        """To the first process; nothing while there is none."""
        if self.init_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init_fd, number)

    def end_monitor(self) -> None:
        """The last resort: the kernel kills the first process along with the monitor."""
        if self.monitor_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.monitor_fd, signal.SIGKILL)


class Monitors:
    """All living containers of this daemon. For the loop's thread only.

    `clean` (in a thread) removes what a stopped container leaves, before `tell` hears that it has stopped.
    """

    def __init__(self, path: Path, clean: Callable[[str], None], tell: Callable[[str, Event], None]) -> None:
        self._title = f"[lxc monitor] {path} "
        self._clean = clean
        self._tell = tell
        self._living: dict[str, Living] = {}

    def get(self, name: str) -> Living | None:
        return self._living.get(name)

    def add(self, name: str, monitor: int) -> Living | None:
        """Watch the container whose monitor has this pid. None if there is no such monitor (any more)."""
        try:
            handle = os.pidfd_open(monitor)
        except (ProcessLookupError, OSError):
            return None
        # Only now that the pid cannot be given to another is it asked whose it is.
        if not self._is_monitor(monitor, name):
            os.close(handle)
            return None
        living = self._living[name] = Living(name, monitor, handle)
        asyncio.get_running_loop().add_reader(handle, self._monitor_ended, living)
        if init := _init_of(monitor):
            self._watch_init(living, init)
        else:
            self._seek(living)
        return living

    def close(self) -> None:
        """Stop watching; the containers live on."""
        for living in [*self._living.values()]:
            self._forget(living)
        self._living.clear()

    def _is_monitor(self, pid: int, name: str) -> bool:
        """Or a copy of it that is still preparing the container."""
        try:
            title = _read(f"/proc/{pid}/cmdline")
        except OSError:
            return False
        return title.rstrip(b"\0 ") == (self._title + name).encode()

    def _watch_init(self, living: Living, init: int) -> bool:
        try:
            handle = os.pidfd_open(init)
        except OSError:
            return False
        if _init_of(living.monitor) != init:
            os.close(handle)
            return False
        living.init, living.init_fd = init, handle
        asyncio.get_running_loop().add_reader(handle, self._init_ended, living)
        return True

    def _init_ended(self, living: Living) -> None:
        self._forget_init(living)
        self._seek(living)

    def _seek(self, living: Living) -> None:
        """Look for a new first process until there is one, or the monitor ends too."""
        if living.monitor_fd < 0 or living.init_fd >= 0:
            return
        before = living.init
        init = _init_of(living.monitor)
        # After a reboot only a first process that LXC has let go counts: killed before, its monitor hangs.
        ready = init and (not before or (init != before and not self._is_monitor(init, living.name)))
        if ready and self._watch_init(living, init):
            if before:
                self._tell(living.name, "rebooted")
        else:
            asyncio.get_running_loop().call_later(SEEK_PAUSE, self._seek, living)

    def _monitor_ended(self, living: Living) -> None:
        self._forget(living)
        cleaned = asyncio.get_running_loop().run_in_executor(None, self._clean, living.name)
        cleaned.add_done_callback(lambda done: self._stopped(living, done))

    def _stopped(self, living: Living, cleaned: asyncio.Future[None]) -> None:
        if not cleaned.cancelled() and (error := cleaned.exception()):
            log.error("after %s stopped: %s", living.name, error)
        if self._living.get(living.name) is living:
            del self._living[living.name]
        living.gone.set()
        self._tell(living.name, "stopped")

    def _forget(self, living: Living) -> None:
        self._forget_init(living)
        if living.monitor_fd >= 0:
            asyncio.get_running_loop().remove_reader(living.monitor_fd)
            os.close(living.monitor_fd)
            living.monitor_fd = -1

    def _forget_init(self, living: Living) -> None:
        if living.init_fd >= 0:
            asyncio.get_running_loop().remove_reader(living.init_fd)
            os.close(living.init_fd)
            living.init_fd = -1


def _init_of(monitor: int) -> int:
    """The monitor's child that is process 1 of a namespace of its own; 0 if there is none now."""
    with contextlib.suppress(OSError):
        for child in _read(f"/proc/{monitor}/task/{monitor}/children").split():
            with contextlib.suppress(OSError):
                _, _, after = _read(f"/proc/{int(child)}/status").partition(b"\nNSpid:")
                pids = after.partition(b"\n")[0].split()
                if len(pids) > 1 and pids[-1] == b"1":
                    return int(child)
    return 0


def _read(path: str) -> bytes:
    # Not read_bytes(): on the event loop, twice at each start, and it takes three times as long.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, PAGE)
    finally:
        os.close(handle)
