"""lxdpy waitready, lxdpy shutdown"""

import asyncio
import contextlib
import os
import select
import socket
import struct
import time
from pathlib import Path

import click

from cluster.errors import Error, Forbidden, Unavailable, Uncertain
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client, socket_path

LOOK_EVERY = 0.05  # seconds; a daemon is ready within one
ANSWER_WITHIN = 5.0  # seconds for one look: a daemon that hangs must not outlast --timeout by much
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of socket(7)


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0), default=0, help="Seconds to wait; 0: for ever.")
def waitready(timeout: float) -> None:
    """Wait until the daemon is ready to serve."""
    asyncio.run(ready(timeout))


async def ready(timeout: float) -> None:
    """Raises Unavailable after `timeout` seconds, 0 for never, and Forbidden at once."""
    path, end = socket_path(), time.monotonic() + timeout
    async with Client.local(path, timeout=ANSWER_WITHIN) as client:
        while True:
            try:
                await client.ask("GET", "/internal/ready")
            except Error as reason:
                if path.exists() and not os.access(path, os.R_OK | os.W_OK):
                    raise Forbidden(f"Not allowed to connect to {path}") from None
                if timeout and time.monotonic() >= end:
                    raise Unavailable(
                        f"The daemon is not ready after {timeout:g} s: {reason.message}"
                    ) from None
            else:
                return
            await asyncio.sleep(LOOK_EVERY)


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0), default=0, help="Seconds to wait; 0: for ever.")
@asks
async def shutdown(client: Client, timeout: float) -> None:
    """Stop all instances of this host, then the daemon, and wait until it has ended.

    The next daemon starts them again. SIGTERM ends a daemon alone.
    """
    path = socket_path()
    process = process_behind(path)
    try:
        with contextlib.suppress(Uncertain):  # it may end before its answer is out
            await client.ask("PUT", "/internal/shutdown")
        end = time.monotonic() + timeout
        while is_there(path, process):
            if timeout and time.monotonic() >= end:
                raise Unavailable(f"The daemon still runs after {timeout:g} s")
            await asyncio.sleep(LOOK_EVERY)
    finally:
        if process is not None:
            os.close(process)


def process_behind(path: Path) -> int | None:
    """A handle (pidfd) of who listens there; None if that cannot be seen from here, or nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            pid = CREDENTIALS.unpack(raw)[0]
            return os.pidfd_open(pid) if pid not in (0, os.getpid()) else None
        except OSError:
            return None


def is_there(path: Path, process: int | None) -> bool:
    """Whether the process lives; without a handle of it, whether anybody listens."""
    if process is not None:
        return not select.select([process], [], [], 0)[0]
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
