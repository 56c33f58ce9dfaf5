"""The daemon's side of processes beside containers: started, found again, ended. See the package."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
from pathlib import Path

from cluster.errors import Conflict, Unavailable
from lxdpy.host.run import run

START_WITHIN = 60.0  # seconds; 0.1 on an idle host
END_WITHIN = 5.0  # seconds; then it is killed
LOCK = "@hhqqi0q"  # struct flock of fcntl(2)
SOURCES = Path(__file__).parents[3]
BOOT = "import sys; sys.path[:0] = [sys.argv[1]]; from {module} import main; main(sys.argv[2])"


class CompanionFailed(Conflict):
    """The process cannot do what it should; the message is its own."""


async def ensure(file: Path, module: str, task: bytes) -> int:
    """Have the file's process do the task, JSON for the `main` of that module; its pid.

    One that does it already is left alone. Raises CompanionFailed.
    """
    pid, does = await asyncio.to_thread(holder, file)
    if pid and does == json.loads(task):
        return pid
    await stop(file)
    await asyncio.to_thread(file.parent.mkdir, 0o711, parents=True, exist_ok=True)
    words = ("-I", "-S", "-c", BOOT.format(module=module), SOURCES, file)
    done = await run(sys.executable, *words, stdin=task.decode(), timeout=START_WITHIN)
    if done.stdout != "ready":
        await stop(file)
        raise CompanionFailed(done.stdout)
    return (await asyncio.to_thread(holder, file))[0]


async def stop(file: Path) -> None:
    """End the process, and wait for that. Idempotent."""
    await asyncio.to_thread(_stop, file)


def _stop(file: Path) -> None:
    pid, _ = holder(file)
    if pid and (handle := _opened(pid, file)) >= 0:
        try:
            _end(handle)
        finally:
            os.close(handle)
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        file.parent.rmdir()  # the last one's


def _opened(pid: int, file: Path) -> int:
    """A pidfd of the process that has the lock; -1 if it has gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if holder(file)[0] == pid:  # so it lived when the descriptor was opened
        return handle
    os.close(handle)
    return -1


def _end(handle: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        if select.select([handle], [], [], END_WITHIN)[0]:
            return
    raise Unavailable("A process beside the instance does not end")


def holder(file: Path) -> tuple[int, object]:
    """The process that has the file's lock, 0 for none, and its task."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return 0, None
        raise
    try:
        asked = struct.pack(LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(LOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return 0, None
        with contextlib.suppress(ValueError):
            return pid, json.loads(os.pread(handle, 1 << 20, 0))
        return pid, None
    finally:
        os.close(handle)
