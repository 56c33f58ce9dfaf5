"""Moves between members and pools: begun by the owner, carried out by who is to have the instance."""

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import Conflict, Error, Invalid, NotFound
from cluster.membership.model import member_named, name_of
from cluster.scheduler.place import place
from cluster.scheduler.types import Ask
from cluster.state.txn import State
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.gpus.commands import Grant, granted, grants_held
from lxdpy.resources.instances import devices as device_actions
from lxdpy.resources.instances import power
from lxdpy.resources.instances.claims import ask_of, views
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance, Move
from lxdpy.resources.instances.owner import built, volume_of
from lxdpy.resources.instances.power import chosen
from lxdpy.resources.instances.rename import moved
from lxdpy.resources.migration.commands import AbortMove, BeginMove, FinishMove, ForgetResidue
from lxdpy.resources.migration.files import Part, fetch
from lxdpy.resources.migration.model import RESIDUES, Residue
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.recovery.writing import is_anothers, refuse_anothers
from lxdpy.resources.snapshots.model import snapshots_of
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.disks import members_with

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

LIVE = "Unable to perform container live migration. CRIU isn't installed on the source server"
MOVE_WITHIN = 7 * 86400.0  # seconds; terabytes through a slow line
LOOK_EVERY = 1.0  # seconds between looks whether the other member is still there
SILENT_FOR = 5.0  # seconds until it is taken for lost: a busy host misses some beats


def check_move(daemon: "Daemon", row: Instance, why: str = "Instance is running") -> None:
    """Whether it may leave. Raises Conflict, or Invalid with this reason if it runs."""
    built(daemon, row.key)
    if daemon.runtime.state(row.volume).status != "Stopped":
        raise Invalid(why)


def destination(daemon: "Daemon", row: Instance, target: str) -> str:
    """The member id that a `?target=` means. Raises Invalid, NotFound, or Exhausted with the reasons.

    A member by name need not have free GPUs: it will when the instance is started there, or refuse then.
    """
    state = daemon.state
    architecture = row.architecture
    if target.startswith("@"):
        config, devices = expanded(state, row)
        ask = ask_of(config, devices, architecture, group=target[1:])
        ask = msgspec.structs.replace(ask, only=members_with(state, row.project, devices))
        there = [
            view for view in views(state, daemon.beat.online) if view.name != name_of(state, row.location)
        ]
        return member_named(state, place(ask, there).member).id
    member = member_named(state, target)
    if member.id == row.location:
        raise Invalid("Requested target server is the same as current server", key="target", value=target)
    place(Ask(architecture=architecture, target=target), views(state, daemon.beat.online))
    return member.id


def check_pool(daemon: "Daemon", row: Instance, pool: str) -> None:
    """Raises Invalid, NotFound."""
    daemon.state.get(POOLS, pool)
    if pool == row.pool:
        raise Invalid("Requested storage pool is the same as current pool", key="pool", value=pool)


async def move(daemon: "Daemon", key: str, to: str, pool: str, operation: Operation) -> None:
    """Move it to the member `to` (id) and the pool, and wait until it is there. Raises what kept it here."""
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        check_move(daemon, row)
        row = await moved(daemon, row)
        await device_actions.forget(daemon, row, expanded(daemon.state, row)[1])
        wanted = Move(operation.id, to, pool)
        await daemon.store.propose(BeginMove(key, daemon.member_id, wanted))
    await arrived(daemon, key, wanted)


async def arrived(daemon: "Daemon", key: str, move: Move) -> None:
    """Wait until a move that was begun has ended. Raises what kept the instance from going there."""
    await failpoints.reach("move.begun")

    def ended(state: State) -> bool:
        now = state.find(INSTANCES, key)
        return now is None or now.move is None or now.move.id != move.id

    now = (await daemon.until(ended, MOVE_WITHIN)).find(INSTANCES, key)
    if now is None or (now.location, now.pool) != (move.to, move.pool):
        raise Conflict(now.stayed if now is not None and now.stayed else "The instance was not moved")


async def drive(daemon: "Daemon", key: str) -> None:
    """Do this member's part of a move that is in the row. Returns when it has ended; idempotent."""
    row = daemon.state.find(INSTANCES, key)
    if row is None or row.move is None:
        return
    if row.move.to == daemon.member_id:
        await _receive(daemon, row, row.move)
    elif row.location == daemon.member_id:
        await _oversee(daemon, row, row.move)


async def _oversee(daemon: "Daemon", row: Instance, move: Move) -> None:
    """Give the move up when the member that carries it out is lost."""
    while (now := daemon.state.find(INSTANCES, row.key)) is not None and now.move == move:
        verdict = daemon.beat.verdict(move.to)
        if not verdict.online and verdict.silence > SILENT_FOR:
            await _abort(daemon, row, move, f"Member {name_of(daemon.state, move.to)} went offline")
        await asyncio.sleep(LOOK_EVERY)


async def _start(daemon: "Daemon", row: Instance) -> None:
    """It ran before the move. That it cannot is no failure of the move."""
    try:
        await power.start(daemon, row.key)
    except Error as failure:
        log.warning("%s was to run again: %s", row.key, failure.message)


async def _receive(daemon: "Daemon", row: Instance, move: Move) -> None:
    """Fetch all files, then own the instance; or give it up, and say why."""
    async with daemon.lock(f"instance {row.key}"):
        now = daemon.state.find(INSTANCES, row.key)
        if now is None or now.move != move:
            return
        try:
            await _fetch_all(daemon, now, move)
            grants = _grants(daemon, now)
        except Error as failure:
            log.warning("%s could not be moved here: %s", row.key, failure.message)
            await _abort(daemon, now, move, failure.message)
            return
        await failpoints.reach("move.fetched")
        try:
            await daemon.store.propose(FinishMove(row.key, move.id, grants))
        except Conflict as late:
            await _abort(daemon, now, move, late.message)
            return
    if move.start:
        await _start(daemon, now)


async def _fetch_all(daemon: "Daemon", row: Instance, move: Move) -> None:
    """Over what an earlier try has left."""
    await refuse_anothers(daemon, _in(row, move.pool))
    target = volume_of(row, expanded(daemon.state, row)[1])
    await daemon.pools.driver(move.pool).delete(target)
    snapshots = snapshots_of(daemon.state, row.key)
    parts = [Part(one.id, Volume(row.volume, snapshot=one.id)) for one in snapshots]
    await fetch(daemon, row, [*parts, Part("", target)], move.pool)


def _in(row: Instance, pool: str) -> Instance:
    return msgspec.structs.replace(row, pool=pool)


def _grants(daemon: "Daemon", row: Instance) -> tuple[Grant, ...]:
    """GPUs of this member for one that holds some though it is stopped. Raises Exhausted, Conflict."""
    if row.move and row.move.grants:
        return row.move.grants
    config, devices = expanded(daemon.state, row)
    if row.location == daemon.member_id:
        return grants_held(daemon.state, row.key, row.config)
    if not granted(row.config) or config.get("gpu.hold") != "always":
        return ()
    return chosen(daemon, row, ask_of(config, devices, row.architecture))


async def _abort(daemon: "Daemon", row: Instance, move: Move, reason: str) -> None:
    try:
        await daemon.store.propose(AbortMove(row.key, move.id, reason))
    except (Conflict, NotFound) as over:
        log.info("%s: %s", row.key, over.message)


async def clear(daemon: "Daemon", key: str) -> None:
    """Remove a residue (key) of this member, unless an instance has its place by now. Idempotent.

    Once nobody copies a snapshot of it any more: nobody begins to, as it is elsewhere.
    """
    residue = daemon.state.find(RESIDUES, key)
    if residue is None or residue.member != daemon.member_id:
        return
    for id in await _snapshots_in(daemon, residue):
        await daemon.unused(id)
    async with daemon.lock(f"instance {residue.instance}"):
        if key not in daemon.state.rows(RESIDUES):
            return
        if residue.pool in daemon.state.rows(POOLS) and not _is_taken(daemon, residue):
            volume = _volume_of(residue)
            now = daemon.state.find(INSTANCES, residue.instance)
            if now is None or not now.stayed or not await is_anothers(daemon, _in(now, residue.pool)):
                await daemon.pools.driver(residue.pool).delete(Volume(volume))
            if now is None or now.location != daemon.member_id:
                daemon.forget_files(volume)
        await failpoints.reach("residue.cleared")
        await daemon.store.propose(ForgetResidue(key))


async def _snapshots_in(daemon: "Daemon", residue: Residue) -> list[str]:
    """Ids of those that are on disk, be it unseen."""
    if residue.pool not in daemon.state.rows(POOLS):
        return []
    volumes = await daemon.pools.driver(residue.pool).volumes()
    mine = ("container", _volume_of(residue))
    return [one.snapshot for one in volumes if one.snapshot and (one.kind, one.name) == mine]


def _volume_of(residue: Residue) -> str:
    project, _, name = residue.instance.partition("/")
    return Instance(project, name, "", "").volume


def _is_taken(daemon: "Daemon", residue: Residue) -> bool:
    row = daemon.state.find(INSTANCES, residue.instance)
    if row is None:
        return False
    homes = {(row.location, row.pool), (row.move.to, row.move.pool) if row.move else ("", "")}
    return (residue.member, residue.pool) in homes
