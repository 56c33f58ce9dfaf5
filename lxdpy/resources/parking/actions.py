"""What an owner does: take the GPUs out of a running container and give them back; and the reverse."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import Error, Invalid
from lxdpy.host.undo import Undo
from lxdpy.resources.gpus.commands import granted, grants_held
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.follow import Grants, align, follow, record_of
from lxdpy.resources.instances.given import as_running
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance
from lxdpy.resources.instances.owner import built
from lxdpy.resources.parking.commands import ParkInstance, UnparkInstance, Why, without

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

TRIES = 4  # of choosing GPUs again when another was faster


async def park(
    daemon: "Daemon",
    key: str,
    why: Why = "asked",
    *,
    force: bool = False,
    still: Callable[[Instance], bool] = lambda _: True,
) -> None:
    """Fine if it is parked already. Raises Invalid if it does not run or holds no GPUs.

    With `force` programs that use them are ended; else Conflict says who does. `still`: asked once nobody
    else is at work on it, whether it is to be parked as it is by then.
    """
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        check_park(daemon, row)
        if PARKED not in row.config and still(row):
            await _align(daemon, row, {**row.config, PARKED: why}, why, end=force)


async def unpark(daemon: "Daemon", key: str) -> None:
    """With the GPUs it had, if they are free, or others that it may have: all it asks for, or none.

    Raises Exhausted or Conflict, saying what there is; Invalid if it is not parked.
    """
    built(daemon, key)

    async def attempt() -> None:
        row = built(daemon, key)
        check_unpark(daemon, row)
        await _align(daemon, row, without(row.config, PARKED), None)

    async with daemon.lock(f"instance {key}"):
        await unless_raced(attempt, TRIES, "to take the GPUs of this member each time")


async def take(daemon: "Daemon", key: str) -> None:
    """Give the container the GPUs that the queue has granted it. It is parked again if that fails.

    Fine if it has them, or does not run any more.
    """
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        if PARKED in row.config or daemon.runtime.state(row.volume).status == "Stopped":
            return
        try:
            await follow(daemon, row, await record_of(daemon, row))
        except Error:
            await daemon.store.propose(ParkInstance(key, daemon.member_id))
            raise


def check_park(daemon: "Daemon", row: Instance) -> None:
    _check_runs(daemon, row)
    if not granted(row.config) and PARKED not in row.config:
        raise Invalid("The instance holds no GPUs", instance=row.name)


def check_unpark(daemon: "Daemon", row: Instance) -> None:
    _check_runs(daemon, row)
    if PARKED not in row.config:
        raise Invalid("The instance is not parked", instance=row.name)


def _check_runs(daemon: "Daemon", row: Instance) -> None:
    if daemon.runtime.state(row.volume).status == "Stopped":
        raise Invalid("The instance is not running", instance=row.name)


async def _align(
    daemon: "Daemon", row: Instance, config: dict[str, str], park_as: Why | None, *, end: bool = False
) -> None:
    """Bring the container in line with that config; the log is told in the middle."""
    given = await record_of(daemon, row)
    wanted = as_running(given, expanded(daemon.state, msgspec.structs.replace(row, config=config)))
    held, me = grants_held(daemon.state, row.key, row.config), daemon.member_id

    async def commit(grants: Grants, undo: Undo) -> Instance:
        parking, unparking = (
            ParkInstance(row.key, me, park_as or "asked"),
            UnparkInstance(row.key, me, grants or ()),
        )
        if park_as:
            state = await daemon.store.propose(parking)
            undo.push(daemon.store.propose, UnparkInstance(row.key, me, held))
        else:
            state = await daemon.store.propose(unparking)
            undo.push(daemon.store.propose, ParkInstance(row.key, me, "asked"))
        return state.get(INSTANCES, row.key)

    await align(daemon, row, given, wanted, commit, end=end)
