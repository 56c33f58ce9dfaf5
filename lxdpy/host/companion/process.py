"""What a process beside a container begins with. Standard library only; one thread.

Its one argument is the file that it locks and writes what it does into; what that is comes on standard input,
as JSON. It leaves its parent as soon as it is ready, or says on standard output why it cannot be.
"""

import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Task = dict[str, Any]
Ready = TypeVar("Ready")


def main(
    file: str,
    prepare: Callable[[Task], Ready],
    serve: Callable[[Task, Ready], NoReturn],
    *,
    trouble: str,
) -> NoReturn:
    """`prepare` may raise OSError, which is told after `trouble` and the name of its file; then `serve`."""
    task = json.load(sys.stdin)
    ready, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        _run(file, task, tell, prepare, serve, trouble)
    os.close(tell)
    with os.fdopen(ready, "rb") as said:
        sys.stdout.buffer.write(said.read() or b"The process ended at once")
    sys.exit(0)


def _run(
    file: str,
    task: Task,
    tell: int,
    prepare: Callable[[Task], Ready],
    serve: Callable[[Task, Ready], NoReturn],
    trouble: str,
) -> NoReturn:
    """In the child. Nothing may escape: an exception's report would read files too."""
    try:
        try:
            nothing, lock = _own(file)
            made = prepare(task)
        except OSError as error:
            what = error.strerror or str(error)
            os.write(tell, (f"{trouble} {error.filename}: {what}" if error.filename else what).encode())
            os._exit(1)
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(task, sort_keys=True).encode(), 0)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.write(tell, b"ready")
        os.close(tell)
        serve(task, made)
    finally:
        os._exit(1)


def _own(file: str) -> tuple[int, int]:
    """Descriptors of nothing, and of the file, locked."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    lock = _made(file)
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return nothing, lock


def _made(file: str) -> int:
    """Its folder may be others' as well, and is removed with the last of them: it is made again then."""
    while True:
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(file), 0o711, exist_ok=True)


def born(pid: int) -> int:
    """When a process began, in the kernel's ticks: with its number, what tells it from any other."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[19])
