"""The process that answers for one container, started by `control`. Standard library only; one thread.

What it does comes as `control.Task`. It ends with LXC's monitor, or by a signal.
"""

import errno
import os
import signal
import socket
from typing import NoReturn

from lxdpy.host.companion import process
from lxdpy.host.companion.process import Task
from lxdpy.host.intercept.server import Server


def main(file: str) -> NoReturn:
    process.main(file, _prepared, _serve, trouble="Cannot listen on")


def _prepared(task: Task) -> tuple[socket.socket, int]:
    """Where LXC comes to, and its monitor if that runs already, or -1."""
    monitor = -1
    if task["monitor"]:
        monitor = os.pidfd_open(task["monitor"])
        if process.born(task["monitor"]) != task["born"]:
            raise ProcessLookupError(errno.ESRCH, "The instance has ended")
    os.makedirs(task["nodes"], 0o700, exist_ok=True)
    return listen(task["socket"]), monitor


def listen(path: str) -> socket.socket:
    """In place of what another left."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    new = f"{path}.new"
    if os.path.lexists(new):
        os.unlink(new)
    try:
        found.bind(new)
    except OSError as error:
        error.filename = path
        raise
    os.chmod(new, 0o600)
    found.listen(4)
    os.rename(new, path)
    return found


def _serve(task: Task, prepared: tuple[socket.socket, int]) -> NoReturn:
    listener, monitor = prepared
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(task, listener, monitor).run()
    os._exit(0)
