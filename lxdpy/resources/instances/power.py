"""What the owner does to run an instance: start, stop, restart, freeze. Each holds the instance's lock."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import Invalid, Unavailable
from cluster.membership.model import name_of
from cluster.scheduler.place import place
from cluster.scheduler.types import Ask
from lxdpy.host import lxcfs, modules
from lxdpy.host.idmap import Idmap, dump
from lxdpy.host.undo import Undo
from lxdpy.resources.gpus.commands import Grant, granted, grants_held, preferred
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances import devices as device_actions
from lxdpy.resources.instances import (
    disk_limits,
    forwards,
    ids,
    interception,
    net_priority,
    teardown,
    templates,
)
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.changing import attend, limit_pages
from lxdpy.resources.instances.claims import ask_of, grants_of, views
from lxdpy.resources.instances.commands import LAST_POWER, StartInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.finishing import finish
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance
from lxdpy.resources.instances.owner import built, present, report, volume_of
from lxdpy.resources.instances.ready import READY
from lxdpy.resources.instances.rename import moved
from lxdpy.resources.instances.spec import idmap_of, modules_of, spec_of
from lxdpy.resources.profiles.model import Config, Devices

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

MAPPED = ("volatile.idmap.current", "volatile.idmap.next")
TRIES = 4  # of choosing GPUs again when another member was faster
SHUTDOWN_WITHIN = 600.0  # seconds a stop without a timeout waits for the init; LXD's own limit


async def start(daemon: "Daemon", key: str) -> None:
    """Start it, from whatever it has; nothing is left behind when that fails. Raises Invalid if it runs."""
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        if daemon.runtime.state(row.volume).status != "Stopped":
            raise Invalid("The instance is already running")
        if row.status != "Stopped":  # it has only just ended by itself
            await teardown.ended(daemon, key)
            row = built(daemon, key)
        await start_container(daemon, await moved(daemon, row))


async def start_container(daemon: "Daemon", row: Instance) -> None:
    """`start` for who holds the lock already, of a stopped instance. It ends up stopped if that fails.

    Raises Unavailable once all are stopped with their host: who comes after that would be left running.
    """
    if daemon.host_stops:
        raise Unavailable("LXD is shutting down")
    async with Undo() as undo:
        undo.push(_abandon, daemon, row)
        daemon.fenced.discard(row.key)
        wanted = expanded(daemon.state, row)
        await records.save(daemon, row, Given(wanted, wanted))
        row, config, devices = await _claim(daemon, row)
        await failpoints.reach("instance.claimed")
        await modules.ensure(modules_of(config))
        row = await ids.reserve(daemon, row, config)
        idmap = idmap_of(row, config)
        driver = daemon.pools.driver(row.pool)
        await daemon.files.end(row.volume)
        await driver.unmount(volume_of(row))  # mounted with other ids, for its files
        await templates.apply(daemon, row, config, devices)
        rootfs = await driver.mount(volume_of(row), idmap)
        attached, notes = await device_actions.start(daemon, row, config, devices)
        await failpoints.reach("instance.attached")
        attached.append(await daemon.guests.open(row, (config, devices)))
        attached.append(await interception.prepare(daemon, row, config))
        notes |= {LAST_POWER: "RUNNING", templates.DUE: "", READY: ""} | changed_map(row, idmap)
        given = Given((config, devices), (config, devices), notes=notes)
        await records.save(daemon, row, given)
        spec = spec_of(row, config, rootfs, attached, await asyncio.to_thread(lxcfs.folder))
        init = await daemon.runtime.start_container(spec)
        await failpoints.reach("instance.started")
        await records.save(daemon, row, msgspec.structs.replace(given, init=init))
        await finish(daemon, row, attached, cold=True)
        await limit_pages(daemon, row, config)
        await forwards.ensure_all(daemon, row, (config | notes, devices))
        if disk_limits.are_limited(devices):
            await disk_limits.limit(daemon, row, (config | notes, devices))
        if net_priority.priority_of(config):
            await net_priority.apply(row, (config | notes, devices))
        await report(daemon, row, "Running", notes, started=True)
        await attend(daemon, present(daemon, row.key), (config | notes, devices))


def changed_map(row: Instance, idmap: Idmap | None) -> Config:
    """Notes of the map it runs with, if it is another one than before."""
    text = dump(idmap)
    return {name: text for name in MAPPED if row.config.get(name) != text}


async def _abandon(daemon: "Daemon", row: Instance) -> None:
    """An ephemeral instance that could not be started, or anew, did not end by that, and stays."""
    await daemon.runtime.kill_container(row.volume)
    if (now := daemon.state.find(INSTANCES, row.key)) is not None:
        await teardown.stopped(daemon, now)


async def _claim(daemon: "Daemon", row: Instance) -> tuple[Instance, Config, Devices]:
    """Take the GPUs it asks for, those it had if they are free; none need no log entry.

    Raises Exhausted or Conflict, saying what there is.
    """

    async def attempt() -> tuple[Instance, Config, Devices]:
        now = present(daemon, row.key)
        config, devices = expanded(daemon.state, now)
        # The devices say it all; the short form in the config would ask for what is parked as well.
        ask = ask_of({} if PARKED in now.config else config, devices, now.architecture)
        if not ask.gpus and not granted(now.config):
            return now, config, devices
        grants = chosen(daemon, now, ask)
        state = await daemon.store.propose(StartInstance(now.key, daemon.member_id, grants))
        now = state.get(INSTANCES, now.key)
        return now, *expanded(state, now)

    return await unless_raced(attempt, TRIES, "to take the GPUs of this member each time")


def chosen(daemon: "Daemon", row: Instance, ask: Ask) -> tuple[Grant, ...]:
    """GPUs of this member for the ask, those its devices had before if they are free.

    What its other devices hold stays theirs. Raises Exhausted or Conflict.
    """
    me = name_of(daemon.state, daemon.member_id)
    had, has = preferred(row.config), granted(row.config)
    gpus = tuple(
        msgspec.structs.replace(gpu, prefer=had.get(gpu.device, ()), held=has.get(gpu.device, ()))
        for gpu in ask.gpus
    )
    asking = {gpu.device for gpu in gpus}
    seen = views(daemon.state, lambda _: True, without=row.key, devices=asking)
    here = [
        # An evacuated member, or one that is given instances by name only, still starts those it has.
        msgspec.structs.replace(view, evacuated=False)
        for view in seen
        if view.name == me
    ]
    mine = msgspec.structs.replace(ask, gpus=gpus, target=me)
    ways = {(own.device, own.uuid): own.sharing for own in grants_held(daemon.state, row.key, row.config)}
    return tuple(
        msgspec.structs.replace(new, anew=ways.get((new.device, new.uuid), new.sharing) != new.sharing)
        for new in grants_of(mine, place(mine, here))
    )


async def stop(daemon: "Daemon", key: str, *, force: bool, timeout: float) -> None:
    """Stop it: by force, or cleanly within `timeout` seconds. Raises Invalid if it does not run.

    A forced stop cuts a clean one short that is under way, or comes before it.
    """
    row = built(daemon, key)
    async with locked_soon(daemon, row) if force else daemon.lock(f"instance {key}") as cut:
        if cut and daemon.state.find(INSTANCES, key) is None:
            return  # it was ephemeral
        row = built(daemon, key)
        stopped = daemon.runtime.state(row.volume).status == row.status == "Stopped"
        if stopped and not cut:
            raise Invalid("The instance is already stopped")
        await halt(daemon, row, force=force, timeout=timeout)
        await failpoints.reach("instance.halted")
        await teardown.ended(daemon, key, killed=force)


@asynccontextmanager
async def locked_soon(daemon: "Daemon", row: Instance) -> AsyncIterator[bool]:
    """The instance's lock, without a wait for clean stops: they are cut short. Tells whether one was."""
    cut, lock = asyncio.Event(), daemon.lock(f"instance {row.key}")
    waiting = daemon.forced.setdefault(row.volume, set())
    waiting.add(cut)  # for those that begin before it is our turn
    try:
        if row.volume in daemon.halting:
            cut.set()
            await daemon.runtime.kill_container(row.volume)
        await lock.acquire()
    finally:
        waiting.discard(cut)
        if not waiting:
            daemon.forced.pop(row.volume, None)
    try:
        yield cut.is_set()
    finally:
        lock.release()


async def halt(daemon: "Daemon", row: Instance, *, force: bool, timeout: float) -> None:
    """End its container, and do no more; a frozen one goes on, to end cleanly. Fine if it does not run."""
    if force:
        await daemon.runtime.kill_container(row.volume)
        return
    daemon.halting.add(row.volume)
    try:
        if waiting := daemon.forced.get(row.volume):
            for cut in waiting:
                cut.set()
            await daemon.runtime.kill_container(row.volume)
            return
        if daemon.runtime.state(row.volume).status == "Frozen":
            await _set_frozen(daemon, row, frozen=False)
        await daemon.runtime.shutdown_container(row.volume, timeout if timeout > 0 else SHUTDOWN_WITHIN)
    finally:
        daemon.halting.discard(row.volume)


async def restart(daemon: "Daemon", key: str, *, force: bool, timeout: float) -> None:
    """Stop and start; the GPUs are kept in between, and the cluster is not told of the stop."""
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        if daemon.runtime.state(row.volume).status == "Stopped":
            raise Invalid("The instance is already stopped")
        await halt(daemon, row, force=force, timeout=timeout)
        await start_anew(daemon, row)


async def start_anew(daemon: "Daemon", row: Instance) -> None:
    """Start a container that has just been ended, as it is wanted now. The caller holds the lock."""
    await teardown.take_down(daemon, row)
    await start_container(daemon, row)


async def freeze(daemon: "Daemon", key: str, *, frozen: bool) -> None:
    """Stop all its processes where they are, or let them go on. Raises Invalid if it is so, or is off."""
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        status = daemon.runtime.state(row.volume).status
        if status == "Stopped":
            raise Invalid("The container isn't running")
        if (status == "Frozen") == frozen:
            raise Invalid(f"The container is already {'frozen' if frozen else 'running'}")
        await _set_frozen(daemon, row, frozen=frozen)


async def _set_frozen(daemon: "Daemon", row: Instance, *, frozen: bool) -> None:
    if frozen:
        await daemon.runtime.freeze(row.volume)
    else:
        await daemon.runtime.unfreeze(row.volume)
    await report(daemon, row, "Frozen" if frozen else "Running", {})
