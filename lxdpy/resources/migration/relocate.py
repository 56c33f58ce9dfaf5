"""An instance moved to another member, stopped meanwhile if it runs: for members that are emptied.

Its place there, GPUs included, is kept before anything is done to it here. Whatever fails then, it goes on
here; so it does after a crash, when what is kept is given up (`instances.settle`).
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import Conflict, Error
from cluster.membership.model import member_named, name_of
from cluster.scheduler.place import place, refusal
from cluster.scheduler.queue import able
from cluster.state.txn import State
from lxdpy.host.undo import Undo
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances import boot, power, teardown
from lxdpy.resources.instances import devices as device_actions
from lxdpy.resources.instances.claims import ask_of, grants_of, views
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance, InstanceStatePut, Move
from lxdpy.resources.instances.owner import built
from lxdpy.resources.instances.rename import moved
from lxdpy.resources.migration.commands import BeginMove, CancelReservation, ReserveMove
from lxdpy.resources.migration.move import arrived
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.server.model import setting
from lxdpy.resources.storage_volumes.disks import members_with
from lxdpy.resources.wire import url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

TRIES = 8  # of choosing a place again when another was faster
START_WITHIN = 60.0  # seconds, at the new owner
SEEN_WITHIN = 2.0  # seconds until this member has applied what the new owner has

Told = Callable[[str], None]


async def relocate(
    daemon: "Daemon", key: str, operation: Operation, told: Told, *, to: str = "", evacuates: bool = False
) -> None:
    """Move it to the member `to` (name), or to the one that fits best. Raises what kept it here.

    `told` hears the name of the member once that is known. One that ran runs there in the end; Conflict if
    it is there and does not.
    """
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        runs = daemon.runtime.state(row.volume).status != "Stopped"
        draft = Move(operation.id, "", row.pool, start=runs, evacuated=daemon.name if evacuates else "")
        async with Undo() as undo:
            undo.push(_stay, daemon, row, runs)
            move = await _reserve(daemon, row, draft, to)
            told(name_of(daemon.state, move.to))
            await failpoints.reach("move.reserved")
            if runs:
                await boot.halt(daemon, row)
                await teardown.stopped(daemon, row, again=True)
            await _leave(daemon, key, move)
    await arrived(daemon, key, move)
    if runs:
        await _see_it_run(daemon, key, move)


async def _reserve(daemon: "Daemon", row: Instance, draft: Move, to: str) -> Move:
    """Raises NoMemberFits with the reasons, or Exhausted."""

    async def attempt() -> Move:
        async with daemon.lock("placing"):  # else all that go at once go to one member
            move = _placed(daemon, row, draft, to)
            await daemon.store.propose(ReserveMove(row.key, daemon.member_id, move))
            return move

    return await unless_raced(attempt, TRIES, "each time a place was found")


def _placed(daemon: "Daemon", row: Instance, draft: Move, to: str) -> Move:
    state = daemon.state
    # One whose GPUs are parked has them again where it is started: they are kept for it there.
    notes = {key: value for key, value in row.config.items() if key != PARKED}
    config, devices = expanded(state, msgspec.structs.replace(row, config=notes))
    ask = ask_of(config, devices, row.architecture, target=to or None)
    ask = msgspec.structs.replace(ask, only=members_with(state, row.project, devices))
    there = [
        view
        for view in views(state, daemon.beat.online, without=row.key)
        if view.name != name_of(state, row.location)
    ]
    if not draft.start and not granted(row.config):  # it will ask for GPUs when it starts
        bare = msgspec.structs.replace(ask, gpus=())
        names = able(ask, [view for view in there if not refusal(bare, view)])
        ask = msgspec.structs.replace(bare, only={**ask.only, "such GPUs": names} if names else ask.only)
    placement = place(ask, there, config.get("gpu.policy") or setting(state, "gpu.policy", "spread"))
    member = member_named(state, placement.member)
    return msgspec.structs.replace(draft, to=member.id, grants=grants_of(ask, placement))


async def _leave(daemon: "Daemon", key: str, move: Move) -> None:
    await failpoints.reach("move.stopped")
    row = await moved(daemon, built(daemon, key))
    await device_actions.forget(daemon, row, expanded(daemon.state, row)[1])
    await daemon.store.propose(BeginMove(key, daemon.member_id, move))


async def _stay(daemon: "Daemon", row: Instance, runs: bool) -> None:
    """As it was before. What is kept elsewhere is given up; fine if nothing is."""
    state = await daemon.store.propose(CancelReservation(row.key, daemon.member_id))
    now = state.get(INSTANCES, row.key)
    if runs and daemon.runtime.state(row.volume).status == "Stopped":
        await power.start_container(daemon, now)


async def _see_it_run(daemon: "Daemon", key: str, move: Move) -> None:
    """The new owner starts it by itself; who asks it hears why it cannot."""
    row = daemon.state.find(INSTANCES, key)
    if row is None:
        return
    path = url("instances", row.name, "state", project=row.project)
    ask = daemon.forwarder.ask
    try:
        begun = await ask(move.to, "PUT", path, InstanceStatePut("start"))
        wait = f"/1.0/operations/{begun['id']}/wait?timeout={START_WITHIN:g}"
        said = str((await ask(move.to, "GET", wait, timeout=START_WITHIN + 10))["err"])
    except Error as failure:
        said = failure.message
    if said and not await _is_seen_running(daemon, key):
        there = name_of(daemon.state, move.to)
        raise Conflict(f"it is on {there}, but could not be started: {said}")


async def _is_seen_running(daemon: "Daemon", key: str) -> bool:
    def runs(state: State) -> bool:
        row = state.find(INSTANCES, key)
        return row is not None and row.status == "Running"

    try:
        await daemon.until(runs, SEEN_WITHIN)
    except TimeoutError:
        return False
    return True
