"""A member emptied for maintenance, and taken into use again.

`cluster.evacuate` says what becomes of an instance: it is moved to another member, and comes back with the
restoration, or it is stopped, cleanly if it can be, and noted to be started again. A GPU is no reason to
stay: another one is kept for the instance before it is stopped. One that nobody has room for runs on, and is
told of.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from cluster.errors import Conflict, Error, Invalid, NotFound
from cluster.membership.commands import EvacuateMember, RestoreMember
from cluster.membership.model import MEMBERS, Status
from lxdpy.host.devices.disk import is_memory, is_root
from lxdpy.resources.instances import power
from lxdpy.resources.instances.boot import STOP_WITHIN
from lxdpy.resources.instances.commands import LAST_POWER
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import report
from lxdpy.resources.migration.commands import ORIGIN
from lxdpy.resources.migration.model import Relocation
from lxdpy.resources.migration.relocate import relocate
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.profiles.model import Devices
from lxdpy.resources.wire import url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

AT_ONCE = 8  # instances stopped, moved or started at a time
BACK_WITHIN = 7 * 86400.0  # seconds for one to come back; terabytes through a slow line
MODES = ("stop", "migrate", "live-migrate")  # of the request; of containers none is moved while it runs
ANYWHERE = ("gpu", "none")  # types of devices that another member has as well

How = Literal["move", "stop"]


def check(status: Status, action: str, mode: str, *, away: bool = False) -> None:
    """Raises Invalid before anything is begun. `away`: whether instances of it are still elsewhere."""
    if action not in ("evacuate", "restore"):
        raise Invalid(f"Unknown action {action!r}: evacuate or restore", key="action")
    if mode and mode not in MODES:
        raise Invalid(f"Unknown mode {mode!r}: one of {', '.join(MODES)}", key="mode")
    if status not in ("ready", "evacuated"):
        raise Invalid("Cannot evacuate or restore a pending cluster member")
    if action == "restore" and status == "ready" and not away:
        raise Invalid("Cluster member is already restored")


def how(daemon: "Daemon", row: Instance, mode: str) -> How:
    """What becomes of an instance."""
    config, devices = expanded(daemon.state, row)
    wish = mode or config.get("cluster.evacuate", "auto")
    if wish == "auto":
        return "move" if can_move(devices) else "stop"
    return "stop" if wish == "stop" else "move"


def can_move(devices: Devices) -> bool:
    """Whether no device is of this host alone."""
    return all(
        options.get("type") in ANYWHERE or is_root(options) or is_memory(options) or options.get("network")
        for options in devices.values()
    )


async def evacuate(daemon: "Daemon", operation: Operation, mode: str) -> None:
    """Take no more instances, then move or stop those there are. One that was cut short is gone on with."""
    status = daemon.state.get(MEMBERS, daemon.member_id).status
    if status == "evacuated" and not _to_clear(daemon, mode):
        raise Invalid("Cluster member is already evacuated")
    await daemon.store.propose(EvacuateMember(daemon.member_id))

    async def clear(row: Instance) -> None:
        if how(daemon, row, mode) == "move":
            await _move(daemon, row, operation)
        elif _runs(daemon, row):
            _say(operation, "Stopping", row)
            await _stop(daemon, row)

    failures = await _each(_to_clear(daemon, mode), clear)  # also who came until just now
    if failures:
        raise Conflict("Member evacuated, but " + "; ".join(failures))


def _to_clear(daemon: "Daemon", mode: str) -> list[Instance]:
    rows = [row for row in _mine(daemon) if row.status != "Creating" and row.move is None]
    return [row for row in rows if _runs(daemon, row) or how(daemon, row, mode) == "move"]


def _runs(daemon: "Daemon", row: Instance) -> bool:
    return daemon.runtime.state(row.volume).status != "Stopped"


def _say(operation: Operation, doing: str, row: Instance, where: str = "") -> None:
    """In LXD's words, as its client shows them."""
    operation.update(evacuation_progress=f'{doing} "{row.name}" in project "{row.project}"{where}')


async def _move(daemon: "Daemon", row: Instance, operation: Operation) -> None:
    def told(member: str) -> None:
        _say(operation, "Migrating", row, f' to "{member}"')

    await relocate(daemon, row.key, operation, told, evacuates=True)


async def _stop(daemon: "Daemon", row: Instance) -> None:
    timeout = float(expanded(daemon.state, row)[0].get("boot.host_shutdown_timeout", STOP_WITHIN))
    try:
        await power.stop(daemon, row.key, force=timeout == 0, timeout=timeout)
    except Error as failure:
        log.info("%s is stopped by force: %s", row.key, failure.message)
        await power.stop(daemon, row.key, force=True, timeout=-1)
    after = daemon.state.find(INSTANCES, row.key)
    if after is not None:  # else it was ephemeral
        await report(daemon, after, "Stopped", {LAST_POWER: "RUNNING"})


async def restore(daemon: "Daemon", operation: Operation, _mode: str) -> None:
    """Start what was stopped by the evacuation, take instances again, and have those back that were moved.

    Gone on with when cut short.
    """
    stopped = [
        row for row in _mine(daemon) if row.status == "Stopped" and row.config.get(LAST_POWER) == "RUNNING"
    ]

    async def start(row: Instance) -> None:
        _say(operation, "Starting", row)
        await power.start(daemon, row.key)

    async def back(row: Instance) -> None:
        _say(operation, "Migrating", row, f' to "{daemon.name}"')
        await _fetch(daemon, row)

    failures = await _each(stopped, start)
    await daemon.store.propose(RestoreMember(daemon.member_id))
    failures += await _each(away(daemon), back)
    if failures:
        raise Conflict("Member restored, but " + "; ".join(failures))


def away(daemon: "Daemon") -> list[Instance]:
    """Those that were moved from here by an evacuation."""
    rows = daemon.state.rows(INSTANCES).values()
    mine = [row for row in rows if row.config.get(ORIGIN) == daemon.name != "none"]
    return sorted((row for row in mine if row.location != daemon.member_id), key=lambda row: row.key)


async def _fetch(daemon: "Daemon", row: Instance) -> None:
    """Have its owner send it here."""
    ask = daemon.forwarder.ask
    path = url("instances", row.name, "relocate", project=row.project).replace("/1.0", "/internal/1.0", 1)
    begun = await ask(row.location, "POST", path, Relocation(daemon.member_id), current=True)
    wait = f"/1.0/operations/{begun['id']}/wait?timeout={BACK_WITHIN:g}"
    ended = await ask(row.location, "GET", wait, timeout=BACK_WITHIN)
    if ended["err"]:
        raise Conflict(ended["err"])


def _mine(daemon: "Daemon") -> list[Instance]:
    rows = daemon.state.rows(INSTANCES).values()
    return sorted((row for row in rows if row.location == daemon.member_id), key=lambda row: row.key)


async def _each(rows: list[Instance], act: Callable[[Instance], Awaitable[None]]) -> list[str]:
    """Do it for all, some at a time; what failed, in words."""
    limit = asyncio.Semaphore(AT_ONCE)
    failures = []

    async def one(row: Instance) -> None:
        async with limit:
            try:
                await act(row)
            except NotFound:
                log.debug("%s is gone", row.key)
            except Error as failure:
                failures.append(f"{row.name}: {failure.message}")

    async with asyncio.TaskGroup() as tasks:
        for row in rows:
            tasks.create_task(one(row))
    return sorted(failures)
