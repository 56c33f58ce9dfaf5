"""File servers: processes of the helper that have entered a container's root (`lxdpy.host.sftp`)."""

import contextlib
import os
import signal
import socket
from pathlib import Path

from cluster.errors import Conflict
from lxdpy.host.lxc.client import ExecSession, HelperClient


class FileServer:
    """One of them. It ends when this side's end of its socket is closed."""

    def __init__(self, session: ExecSession, end: socket.socket) -> None:
        self._session = session
        self._socket = end
        self._taken = False

    def take(self) -> socket.socket:
        """This side's end, to be closed by who takes it."""
        self._taken = True
        return self._socket

    async def end(self) -> None:
        """Returns when the process is gone, and with it its hold on the root. Idempotent."""
        if self._taken:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._socket.close()
        with contextlib.suppress(Conflict):
            self._session.signal(signal.SIGKILL)
        await self._session.gone()


async def serve(helper: HelperClient, root: int, *, running: bool) -> FileServer:
    """`root`: the first process of a running container (a pidfd), or the folder of a stopped one."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as unless_done:
        unless_done.enter_context(ours)
        with theirs:
            session = await helper.launch("files", [theirs.fileno(), root], running=running)
        unless_done.pop_all()
    return FileServer(session, ours)


async def serve_folder(helper: HelperClient, folder: Path) -> FileServer:
    """Of a stopped container: its files as they lie on disk, with the container's ids."""
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await serve(helper, root, running=False)
    finally:
        os.close(root)
