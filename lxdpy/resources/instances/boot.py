"""What comes with the machine: who is started when the daemon starts, how all are stopped with their host.

A daemon that only ends leaves its instances running. `lxdpy shutdown` and SIGPWR stop them first.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cluster.errors import Error
from cluster.membership.model import MEMBERS
from cluster.state.txn import State
from lxdpy.resources.gpu_queue import asking
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, waiting_for
from lxdpy.resources.instances import power, teardown
from lxdpy.resources.instances.commands import LAST_POWER
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.spec import is_on
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.snapshots import schedule
from lxdpy.resources.warnings.model import AUTOSTART_FAILED
from lxdpy.resources.warnings.raising import raise_warning, resolve
from lxdpy.resources.wire import url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

TRIES = 3  # of starting; a GPU or a network may come up later than the daemon, as in LXD
AGAIN = 5.0  # seconds in between
AT_ONCE = 32  # instances stopped at a time
STOP_WITHIN = "30"  # seconds for a clean stop, unless boot.host_shutdown_timeout says otherwise


async def has_booted(daemon: "Daemon") -> bool:
    """Whether the machine was started, or told the daemon to stop all, since the last daemon ran.

    To be asked once by a daemon.
    """
    return await asyncio.to_thread(_note_boot, daemon)


def _note_boot(daemon: "Daemon") -> bool:
    file, now = daemon.root / "boot-id", daemon.host.proc / "sys/kernel/random/boot_id"
    before = file.read_text() if file.exists() else ""
    file.write_text(now.read_text())
    return before != now.read_text()


def mine(daemon: "Daemon") -> list[Instance]:
    rows = daemon.state.rows(INSTANCES).values()
    return [row for row in rows if row.location == daemon.member_id and row.status != "Creating"]


async def autostart(daemon: "Daemon", settled: Callable[[str], Awaitable[None]]) -> None:
    """Start who is to run: by `boot.autostart`, or as it ran before; one after the other.

    `settled` returns when what became of an instance (key) is known. A member that is emptied starts none.
    """
    keys = [row.key for row in sorted(mine(daemon), key=lambda row: (-_priority(daemon, row), row.key))]
    for key in keys:
        await settled(key)
    await start_all(daemon, keys)


async def start_all(daemon: "Daemon", keys: list[str]) -> None:
    """Start those of them that are to run. Of one that cannot be started for long there is a warning."""
    failed = dict.fromkeys(keys, "")
    for number in range(TRIES):
        if number:
            await asyncio.sleep(AGAIN)
        failed = {key: why for key in failed if (why := await _failure(daemon, key))}
        if not failed:
            return
    for key, why in failed.items():
        _warn(daemon, key, why)


def _warn(daemon: "Daemon", key: str, why: str) -> None:
    """With no reason: it runs, or nobody wants it to."""
    project, _, name = key.partition("/")
    entity = url("instances", name, project=project)
    told = (
        raise_warning(daemon, AUTOSTART_FAILED, why, entity=entity)
        if why
        else resolve(daemon, AUTOSTART_FAILED, entity=entity)
    )
    daemon.spawn(told, f"warning of {key}")


def _priority(daemon: "Daemon", row: Instance) -> int:
    return int(expanded(daemon.state, row)[0].get("boot.autostart.priority", "0"))


async def _failure(daemon: "Daemon", key: str) -> str:
    """Why it could not be started, "" if there is nothing more to do for it."""
    row = daemon.state.find(INSTANCES, key)
    if row is None or daemon.host_stops or daemon.state.get(MEMBERS, daemon.member_id).status != "ready":
        return ""
    config = expanded(daemon.state, row)[0]
    if daemon.runtime.state(row.volume).status != "Stopped":
        _warn(daemon, key, "")
        return ""
    if not is_wanted(row, config):
        return ""
    try:
        if turn := waiting_for(daemon.state, key) or await asking.start(daemon, row):
            daemon.spawn(_see_through(daemon, key, turn.id), f"start of {key}")
            return ""
        await start(daemon, key)
    except Error as failure:
        log.warning("%s could not be started with its host: %s", key, failure.message)
        return failure.message
    log.info("%s was started with its host", key)
    _warn(daemon, key, "")
    await asyncio.sleep(float(config.get("boot.autostart.delay", "0")))
    return ""


async def _see_through(daemon: "Daemon", key: str, id: str) -> None:
    """Of one that waits its turn for GPUs: until it has been started, or will not be."""
    log.info("%s waits for its GPUs, to be started with its host", key)

    def ended(state: State) -> bool:
        turn = state.find(GPU_QUEUE, id)
        return turn is None or turn.status in ("done", "ended")

    turn = (await daemon.until(ended, None)).find(GPU_QUEUE, id)
    if turn is not None and not turn.cancelled:
        _warn(daemon, key, turn.err)


async def start(daemon: "Daemon", key: str) -> None:
    """Start it, for whoever asks, with the snapshot before it that its schedule may want."""
    await schedule.at_start(daemon, key)
    await power.start(daemon, key)


def is_wanted(row: Instance, config: Config) -> bool:
    """Whether a stopped instance is to be started with its host."""
    if row.status != "Stopped" or row.move is not None:
        return False
    if config.get("boot.autostart"):
        return is_on(config, "boot.autostart")
    return row.config.get(LAST_POWER) == "RUNNING"


async def stop_all(daemon: "Daemon") -> None:
    """Stop all, the highest `boot.stop.priority` first; they are started again with the next daemon."""
    by_priority: dict[int, list[Instance]] = defaultdict(list)
    for row in mine(daemon):
        if daemon.runtime.state(row.volume).status != "Stopped" or _is_at_work(daemon, row):
            priority = int(expanded(daemon.state, row)[0].get("boot.stop.priority", "0"))
            by_priority[priority].append(row)
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(row: Instance) -> None:
        async with limit:
            await _stop(daemon, row)

    for _, rows in sorted(by_priority.items(), reverse=True):
        async with asyncio.TaskGroup() as tasks:
            for row in rows:
                tasks.create_task(one(row))
    await asyncio.to_thread((daemon.root / "boot-id").unlink, missing_ok=True)


def _is_at_work(daemon: "Daemon", row: Instance) -> bool:
    """Whether something goes on with it: it may be about to run."""
    lock = daemon.locks.get(f"instance {row.key}")
    return lock is not None and lock.locked()


async def _stop(daemon: "Daemon", row: Instance) -> None:
    """What cannot be told to the cluster any more is found by the next daemon, which starts it again."""
    async with power.locked_soon(daemon, row):
        now = daemon.state.find(INSTANCES, row.key)
        if now is None or daemon.runtime.state(row.volume).status == "Stopped":
            return
        try:
            await halt(daemon, now)
            await teardown.ended(daemon, now.key, again=True)
        except Error as failure:
            log.warning("%s was stopped with its host, but: %s", row.key, failure.message)
        else:
            log.info("%s was stopped with its host", row.key)


async def halt(daemon: "Daemon", row: Instance) -> None:
    """End its container: cleanly if it can be, by force if not. The caller holds the lock."""
    timeout = float(expanded(daemon.state, row)[0].get("boot.host_shutdown_timeout", STOP_WITHIN))
    if daemon.runtime.state(row.volume).status == "Frozen":
        await daemon.runtime.unfreeze(row.volume)
    try:
        await power.halt(daemon, row, force=timeout == 0, timeout=timeout)
    except Error as failure:
        log.info("%s is stopped by force: %s", row.key, failure.message)
        await power.halt(daemon, row, force=True, timeout=0)
