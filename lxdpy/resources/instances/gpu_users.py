"""Programs in a container that have its GPUs open: no GPU is given to others while one goes on using it.

To take a device file away, and the right to open it, takes nothing from a program that has it open already.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING

from cluster.errors import Conflict
from lxdpy.host import open_files
from lxdpy.host.open_files import Number
from lxdpy.resources.instances.devices import driver_of, seat_of
from lxdpy.resources.instances.given import Expanded
from lxdpy.resources.instances.model import Instance

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

END_WITHIN = 10.0  # seconds a program has to save its work before it is killed
DIE_WITHIN = 5.0  # seconds from then on; one that the driver holds fast may take for ever
LOOK_EVERY = 0.1  # seconds
CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/kfd")
"""Files of all cards of a vendor: to have one open is not to use a card."""
SHOWN = 5  # of the programs


async def files_of(daemon: "Daemon", row: Instance, has: Expanded, name: str) -> set[Number]:
    """The device files of cards that a GPU device of the container brought."""
    seat = seat_of(daemon, row, has[0], name, has[1][name])
    nodes = (await driver_of(daemon, seat).detach(seat)).nodes
    return {(node.major, node.minor) for node in nodes if node.path not in CONTROL}


async def leave(daemon: "Daemon", row: Instance, files: set[Number], *, end: bool) -> None:
    """Nobody in the container has these open, once this returns. `end`: programs that have are ended.

    Raises Conflict, naming them, when they are not to be, or do not end.
    """
    if end and (found := await _users(daemon, row, files)):
        log.info("%s: ending %s, which use its GPUs", row.key, _named(found))
        for sign, within in ((signal.SIGTERM, END_WITHIN), (signal.SIGKILL, DIE_WITHIN)):
            if not await _told(daemon, row, files, sign, within):
                return
    if found := await _users(daemon, row, files):
        raise Conflict(
            f"GPUs of the instance are in use by {_named(found)}: end them first", instance=row.name
        )


async def _told(
    daemon: "Daemon", row: Instance, files: set[Number], sign: signal.Signals, within: float
) -> bool:
    """Send it to all, and again to those that come; whether some are left in the end."""
    told: set[int] = set()
    deadline = time.monotonic() + within
    while found := await _users(daemon, row, files):
        if time.monotonic() > deadline:
            return True
        for pid in found.keys() - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        told |= found.keys()
        await asyncio.sleep(LOOK_EVERY)
    return False


async def _users(daemon: "Daemon", row: Instance, files: set[Number]) -> dict[int, str]:
    def look() -> dict[int, str]:
        pids = daemon.runtime.cgroups.processes(row.volume)
        return open_files.users(daemon.host.proc, pids, files)

    return await asyncio.to_thread(look) if files else {}


def _named(found: dict[int, str]) -> str:
    names = [f"{name} (pid {pid})" for pid, name in sorted(found.items())]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
