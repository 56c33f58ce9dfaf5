"""A running container brought in line with what its config says now: limits, devices, GPUs.

In this order, so that no GPU is ever in a container that does not hold it: device files of GPUs that go are
taken out; the ledger and the row change, in one log entry; everything else follows. What cannot be done takes
all of it back.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from cluster.scheduler.types import Ask
from lxdpy.host import modules
from lxdpy.host.undo import Undo
from lxdpy.resources.gpus.commands import LAST, Grant, granted, grants_held
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances import disk_limits, gpu_users, hotplug, interception, net_priority
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.changing import attend
from lxdpy.resources.instances.claims import ask_of
from lxdpy.resources.instances.commands import StartInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.given import Expanded, Given, as_running
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance
from lxdpy.resources.instances.owner import note, present
from lxdpy.resources.instances.power import TRIES, chosen
from lxdpy.resources.instances.spec import limits_of, modules_of
from lxdpy.resources.profiles.model import Devices

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

Grants = tuple[Grant, ...] | None  # all an instance holds from now on; None: as it is
Commit = Callable[[Grants, Undo], Awaitable[Instance]]  # records the change; and says how to take it back


async def record_of(daemon: "Daemon", row: Instance) -> Given:
    """What the running container has. If that was lost it is taken to have what it should, from then on."""
    known = await records.load(daemon, row)
    if known is None:
        wanted = expanded(daemon.state, row)
        known = Given(wanted, wanted, daemon.runtime.state(row.volume).init_pid)
        await records.save(daemon, row, known)
    return known


async def follow(daemon: "Daemon", row: Instance, given: Given) -> None:
    """What is wanted by now, as a profile has changed, or a change was cut short."""

    async def attempt() -> None:
        now = present(daemon, row.key)
        wanted = as_running(given, expanded(daemon.state, now))
        if wanted != given.now:
            await align(daemon, now, given, wanted, _committing(daemon, now))

    await unless_raced(attempt, TRIES, "to take the GPUs of this member each time")


def _committing(daemon: "Daemon", row: Instance) -> Commit:
    held = grants_held(daemon.state, row.key, row.config)

    async def commit(grants: Grants, undo: Undo) -> Instance:
        if grants is None:
            return row
        undo.push(daemon.store.propose, StartInstance(row.key, daemon.member_id, held))
        state = await daemon.store.propose(StartInstance(row.key, daemon.member_id, grants))
        return state.get(INSTANCES, row.key)

    return commit


async def align(
    daemon: "Daemon", row: Instance, given: Given, wanted: Expanded, commit: Commit, *, end: bool = False
) -> None:
    """Give the container what is wanted; `commit` records it, and the GPUs, once those that go are out.

    Programs that have these open are ended if `end` says so. Else Conflict is raised.
    """
    had = records.has(row, given)
    gone = hotplug.leaving(had[1], wanted[1])
    grants = grants_for(daemon, row, had[1], wanted)
    files = set()
    async with Undo() as undo:
        for name in [name for name in gone if hotplug.is_gpu(had[1][name])]:
            undo.push(records.save, daemon, row, given)
            await records.save(daemon, row, msgspec.structs.replace(given, now=without(given.now, name)))
            undo.push(_give_back, daemon, row, had, name)
            files |= await gpu_users.files_of(daemon, row, had, name)
            await hotplug.unplug(daemon, row, had, name)
            had = without(had, name)
        await gpu_users.leave(daemon, row, files, end=end)
        row = await commit(grants, undo)
        notes = await _rest(daemon, row, had, (wanted[0] | records.notes_of(row), wanted[1]), undo)
        marks = tuple(f"volatile.{name}." for name in gone if name not in wanted[1])
        kept = LAST if PARKED in row.config else None
        notes |= {
            key: "" for key in row.config if key.startswith(marks) and not (kept and key.endswith(kept))
        }
        if notes:
            await note(daemon, row, notes)
        row = present(daemon, row.key)
        has = (wanted[0] | records.notes_of(row), wanted[1])
        await _limit_disks(daemon, row, records.has(row, given), has, undo)
        await _prioritize(row, records.has(row, given), has, undo)
        await attend(daemon, row, has)
        await records.save(daemon, row, msgspec.structs.replace(given, now=wanted))
    daemon.guests.changed(row, given.now, wanted)


async def _give_back(daemon: "Daemon", row: Instance, had: Expanded, name: str) -> None:
    """Put a device with GPUs in again, if the ledger has been taken back before."""
    held = granted(present(daemon, row.key).config).get(name)
    if held == granted(had[0]).get(name):
        await _plug_again(daemon, row, had, name)
    else:
        log.error("%s: device %s has lost its GPUs to others", row.key, name)


async def _plug_again(daemon: "Daemon", row: Instance, had: Expanded, name: str) -> None:
    """With what is noted of it: a GPU's files are those that an unplug takes out."""
    notes = await hotplug.plug(daemon, row, had[0], name, had[1][name])
    await note(daemon, present(daemon, row.key), notes)


async def _rest(
    daemon: "Daemon", row: Instance, had: Expanded, wanted: Expanded, undo: Undo
) -> dict[str, str]:
    """All but the GPUs that go; returns what to remember."""
    before, after = limits_of(row, had[0]), limits_of(row, wanted[0])
    if before != after:
        undo.push(daemon.runtime.set_limits, row.volume, before)
        await daemon.runtime.set_limits(row.volume, after)
    await modules.ensure(modules_of(wanted[0]))
    undo.push(daemon.guests.follow, row, wanted, had)
    await daemon.guests.follow(row, had, wanted)
    undo.push(interception.follow, daemon, row, wanted[0], had[0])
    await interception.follow(daemon, row, had[0], wanted[0])
    for name in hotplug.altered(daemon, row, had, wanted):
        old, new = had[1][name], wanted[1][name]
        undo.push(hotplug.update, daemon, row, had[0], name, (new, old))
        await hotplug.update(daemon, row, wanted[0], name, (old, new))
        had = had[0], had[1] | {name: new}
    come = hotplug.leaving(wanted[1], had[1])
    for name in hotplug.leaving(had[1], wanted[1]):
        undo.push(_plug_again, daemon, row, had, name)
        await hotplug.unplug(daemon, row, had, name)
        had = without(had, name)
    notes: dict[str, str] = {}
    for name in come:
        notes |= await hotplug.plug(daemon, row, wanted[0], name, wanted[1][name])
        has = wanted[0] | notes, had[1] | {name: wanted[1][name]}
        undo.push(hotplug.unplug, daemon, row, has, name)
        had = has
    return notes


async def _limit_disks(daemon: "Daemon", row: Instance, had: Expanded, has: Expanded, undo: Undo) -> None:
    """LXC's own restart makes a group without these limits: `settle` sets them again."""
    if disk_limits.are_limited(had[1]) or disk_limits.are_limited(has[1]):
        undo.push(disk_limits.limit, daemon, row, had)
        await disk_limits.limit(daemon, row, has)


async def _prioritize(row: Instance, had: Expanded, has: Expanded, undo: Undo) -> None:
    if net_priority.priority_of(had[0]) or net_priority.priority_of(has[0]):
        undo.push(net_priority.apply, row, had)
        await net_priority.apply(row, has)


def without(has: Expanded, name: str) -> Expanded:
    """What is left after device `name` has gone."""
    return has[0], {other: options for other, options in has[1].items() if other != name}


def grants_for(daemon: "Daemon", row: Instance, had: Devices, wanted: Expanded) -> Grants:
    """All GPUs the running instance is to hold, if devices with GPUs come, go or change; None otherwise.

    Raises Exhausted or Conflict when there are none for those that come.
    """
    gpus = {name: options for name, options in wanted[1].items() if hotplug.is_gpu(options)}
    come = hotplug.leaving(gpus, had)
    gone = [name for name in hotplug.leaving(had, gpus) if hotplug.is_gpu(had[name])]
    if not come and not gone:
        return None
    kept = tuple(
        grant
        for grant in grants_held(daemon.state, row.key, row.config)
        if grant.device not in (*come, *gone)
    )
    if not come:
        return kept
    asked = ask_of({}, {name: gpus[name] for name in come}, row.architecture)
    return kept + chosen(daemon, row, Ask(architecture=row.architecture, gpus=asked.gpus))
