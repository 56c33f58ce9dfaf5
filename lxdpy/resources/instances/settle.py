"""One instance of this member brought in line: with what became of its container, and with its config.

Done whenever something may have happened to it: its container ended or rebooted, a profile changed, the
daemon has just started. However often, and after whatever crash.
"""

import logging
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error, Uncertain
from lxdpy.resources.instances import boot, teardown
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.changing import look_again
from lxdpy.resources.instances.commands import LAST_POWER, RENAMED_FROM
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.follow import follow, record_of
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import note, present, report
from lxdpy.resources.instances.power import start_anew, start_container
from lxdpy.resources.instances.quiet import wake
from lxdpy.resources.instances.ready import READY, is_ready
from lxdpy.resources.instances.rename import moved
from lxdpy.resources.migration.commands import CancelReservation
from lxdpy.resources.snapshots import actions as snapshots

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


def may_be_off(daemon: "Daemon", row: Instance) -> bool:
    """Whether there is something to do for a stopped instance of which this host has no record."""
    wrong = row.status not in ("Stopped", "Creating") or RENAMED_FROM in row.config
    return wrong or row.reserved is not None or snapshots.is_untidy(daemon, row)


async def settle(daemon: "Daemon", key: str) -> None:
    """Idempotent. Raises Error for what is worth another try."""
    async with daemon.lock(f"instance {key}"):
        row = daemon.state.find(INSTANCES, key)
        if row is None or row.location != daemon.member_id or row.status == "Creating" or row.move:
            return
        if await records.is_marked(daemon, row):
            await daemon.runtime.kill_container(row.volume)
            await teardown.remove(daemon, row)
            return
        await wake(daemon, row)
        if snapshots.is_untidy(daemon, row):
            await snapshots.tidy(daemon, row)
            row = daemon.state.get(INSTANCES, key)
        if row.reserved is not None:
            row = await _stay(daemon, row)
        if daemon.runtime.state(row.volume).status == "Stopped":
            await _off(daemon, await moved(daemon, row))
        else:
            await _running(daemon, row)


async def _off(daemon: "Daemon", row: Instance) -> None:
    """What its member ended while it was cut off is started again, as is what ended with its host."""
    given = await records.load(daemon, row)
    fenced = given is not None and (given.fenced or row.key in daemon.fenced)
    if may_be_off(daemon, row) or given:
        await teardown.ended(daemon, row.key, again=fenced or row.key in daemon.cut_off)
    daemon.cut_off.discard(row.key)
    daemon.fenced.discard(row.key)
    if fenced:
        daemon.spawn(boot.start_all(daemon, [row.key]), f"start of {row.key}")


async def _stay(daemon: "Daemon", row: Instance) -> Instance:
    """A crash kept it from being moved. If it was stopped for that, it runs again."""
    log.info("%s was to be moved, and stays", row.key)
    state = await daemon.store.propose(CancelReservation(row.key, daemon.member_id))
    row = state.get(INSTANCES, row.key)
    stopped = row.status == daemon.runtime.state(row.volume).status == "Stopped"
    if stopped and row.config.get(LAST_POWER) == "RUNNING":
        await start_container(daemon, row)
        return daemon.state.get(INSTANCES, row.key)
    return row


async def _running(daemon: "Daemon", row: Instance) -> None:
    status = daemon.runtime.state(row.volume).status
    given = await record_of(daemon, row)
    if given.fenced and row.key not in daemon.fenced:  # a daemon died just before it ended it
        given = msgspec.structs.replace(given, fenced=False)
        await records.save(daemon, row, given)
    if row.status != status and status != "Stopped":
        started = row.status not in ("Running", "Frozen")
        await report(daemon, row, status, given.notes if started else {}, started=started)
        row = present(daemon, row.key)
    known = await _came_back(daemon, row, given)
    if known is None:
        return
    try:
        await daemon.guests.open(row, records.has(row, known))
        await follow(daemon, row, known)
        await look_again(daemon, row)
    except Error as failure:
        if isinstance(failure, Uncertain) or daemon.store.leader is None:
            raise  # nobody could be told
        log.warning("%s does not follow its config until its next start: %s", row.key, failure.message)


async def _came_back(daemon: "Daemon", row: Instance, given: Given) -> Given | None:
    """What it has if it has rebooted; None if it was started anew: LXC's restart knows only what it was
    started with.
    """
    init = daemon.runtime.state(row.volume).init_pid
    if not init or init == given.init:
        return given
    if given.init and records.is_outdated(given, expanded(daemon.state, row)):
        log.info("%s has rebooted, and is started as it is wanted by now", row.key)
        await daemon.runtime.kill_container(row.volume)
        await start_anew(daemon, row)
        return None
    unsaid = is_ready(row) and not daemon.guests.is_ready(row.volume, init)
    notes = {READY: ""} if unsaid else {}
    if given.init:
        await report(daemon, row, row.status, notes, started=True)
    elif notes:
        await note(daemon, row, notes)
    known = msgspec.structs.replace(given, init=init)
    await records.save(daemon, row, known)
    return known
