"""PURE: between instances and the scheduler, which knows no instances: views of members, asks, grants."""

from collections.abc import Callable, Collection

import msgspec

from cluster.scheduler.queue import hidden
from cluster.scheduler.selectors import asks_of
from cluster.scheduler.types import Ask, MemberView, Placement
from cluster.state.txn import State
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.gpus.model import GPUS, GPUS_KEPT, GpuRow
from lxdpy.resources.instances.census import CENSUS, gpu_view, overlapped, shown
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.server.model import setting

replace = msgspec.structs.replace


def views(
    state: State,
    online: Callable[[str], bool],
    *,
    without: str = "",
    devices: Collection[str] | None = None,
    kept: bool = True,
) -> list[MemberView]:
    """All members as the scheduler sees them; `online` says of a member id whether it is alive.

    What the instance `without` (key) holds, by these of its devices or by any, counts as free: for its own
    next start. With `kept`, what is kept for the first in the queue counts as held, unless `without` has it.
    """
    known = CENSUS.ask(state, lambda census: list(census.views.items()))
    found = [view if online(id_) or not view.online else replace(view, online=False) for id_, view in known]
    if without:
        found = [_without(state, view, without, devices) for view in found]
    marked = state.rows(GPUS_KEPT).items() if kept else ()
    return hidden(found, {uuid: row.label for uuid, row in marked if not _holds(state, without, uuid)})


def _holds(state: State, instance: str, uuid: str) -> bool:
    row = state.find(GPUS, uuid)
    return row is not None and any(holder.instance == instance for holder in row.holders)


def _without(state: State, view: MemberView, instance: str, devices: Collection[str] | None) -> MemberView:
    name = shown(instance)
    if not any(hold.holder == name for gpu in view.gpus for hold in gpu.holders):
        return view
    rows = (state.get(GPUS, gpu.uuid) for gpu in view.gpus)
    return replace(view, gpus=overlapped([gpu_view(_left(row, instance, devices)) for row in rows]))


def _left(row: GpuRow, instance: str, devices: Collection[str] | None) -> GpuRow:
    """Without the holds of this instance by these of its devices or by any."""
    rest = (h for h in row.holders if h.instance != instance or not (devices is None or h.device in devices))
    return replace(row, holders=tuple(rest))


def ask_of(
    config: Config,
    devices: Devices,
    architecture: str,
    *,
    target: str | None = None,
    group: str | None = None,
) -> Ask:
    """What an instance of this expanded config wants. Raises Invalid for a bad GPU device."""
    return Ask(architecture=architecture, gpus=asks_of(devices, config), target=target, group=group)


def grants_of(ask: Ask, placement: Placement) -> tuple[Grant, ...]:
    """What the ledger is asked to record for a placement."""
    return tuple(
        Grant(gpu.device, uuid, gpu.sharing, gpu.memory if gpu.sharing == "shared" else 0)
        for gpu in ask.gpus
        for uuid in placement.gpus.get(gpu.device, ())
    )


def policy_of(state: State, config: Config, group: str | None) -> str:
    """How to rank members: as the instance says, or the group that was asked for, or the server."""
    of_group = setting(state, f"gpu.policy.{group}") if group else ""
    return config.get("gpu.policy") or of_group or setting(state, "gpu.policy", "spread")
