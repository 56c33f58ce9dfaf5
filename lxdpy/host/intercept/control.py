"""The daemon's side of interception: the process beside each container, and its rules. See the package."""

import asyncio
from pathlib import Path

import msgspec

from cluster.errors import Conflict, Invalid
from lxdpy.host.companion import control
from lxdpy.host.companion.process import born
from lxdpy.host.paths import InstancePaths

PROGRAM = "lxdpy.host.intercept.program"
LONGEST = 107  # bytes of the path of a unix socket


class Rules(msgspec.Struct, frozen=True):
    """What is done for a container; they may change while it runs."""

    switches: tuple[str, ...] = ()
    """Which keys `security.syscalls.intercept.…` are on."""
    allowed: tuple[str, ...] = ()
    """File systems that may be mounted from block devices, and hugetlbfs."""
    shift: bool = False
    """Show the owners in them as the container's own ids."""
    groups: dict[str, str] = {}
    """Folders of the control groups that carry its limits, by controller; those that the host has. `unified`:
    of version 2, the one below which all is the container's."""
    fuse: dict[str, str] = {}
    """Programs of its own that mount a file system for it, by the file system."""
    policy: str = ""
    """File with its policy of system calls, for these programs."""
    devices: bool = False
    """Load programs that decide on devices."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """For one life of a monitor of LXC's, in the process's words: all paths, and the monitor if it runs."""

    socket: str
    rules: str
    nodes: str
    monitor: int
    born: int


def lines(paths: InstancePaths) -> tuple[tuple[str, str], ...]:
    """For LXC: whom it asks. Raises Invalid if there is no such place."""
    path = paths.calls
    if len(str(path).encode()) > LONGEST:
        raise Invalid(f"The path of the server's folder is too long for sockets to intercept calls: {path}")
    return ("lxc.seccomp.notify.proxy", f"unix:{path}"), ("lxc.seccomp.notify.cookie", paths.name)


def _file(paths: InstancePaths) -> Path:
    """Not in the run folder, which goes before we can look who holds it."""
    return paths.calls.with_suffix(".lock")


def _rules(paths: InstancePaths) -> Path:
    return paths.run / "intercept.rules"


async def is_asked(paths: InstancePaths) -> bool:
    """Whether the container was started with a process for its calls."""
    return await asyncio.to_thread(_rules(paths).exists)


async def change(paths: InstancePaths, rules: Rules) -> None:
    """From the next call on."""
    await asyncio.to_thread(_write, _rules(paths), msgspec.json.encode(rules))


async def ensure(paths: InstancePaths, rules: Rules, monitor: int) -> int:
    """Have a process that follows the rules, for a monitor that runs or (0) is to be started; its pid.

    Raises CompanionFailed.
    """
    await change(paths, rules)
    task = await asyncio.to_thread(_task, paths, monitor)
    pid, does = await asyncio.to_thread(control.holder, _file(paths))
    if pid and isinstance(does, dict) and does.get("monitor") in (0, monitor):
        return pid  # one that was there before the monitor knows by now which it is
    return await control.ensure(_file(paths), PROGRAM, msgspec.json.encode(task))


def _task(paths: InstancePaths, monitor: int) -> Task:
    try:
        begun = born(monitor) if monitor else 0
    except OSError:
        raise Conflict("The instance is not running") from None
    return Task(
        socket=str(paths.calls),
        rules=str(_rules(paths)),
        nodes=str(paths.run / "nodes"),
        monitor=monitor,
        born=begun,
    )


def _write(path: Path, text: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(text)
    new.replace(path)


async def stop(paths: InstancePaths) -> None:
    """End the process, and take away what it leaves. Idempotent."""
    await asyncio.to_thread(paths.calls.unlink, missing_ok=True)
    await control.stop(_file(paths))
