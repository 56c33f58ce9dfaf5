"""What an owner's actions have in common: the row if it is this member's, its volume, what it reports."""

from typing import TYPE_CHECKING

from cluster.errors import Conflict, NotFound
from cluster.membership.model import name_of
from lxdpy.config.types import size
from lxdpy.host.devices.disk import is_root
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.commands import SetInstanceStatus
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance, Status
from lxdpy.resources.profiles.model import Devices

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

REPORT_WITHIN = 30.0  # seconds without a leader until a report is given up; `settle` makes it again


def present(daemon: "Daemon", key: str) -> Instance:
    """The row, if this member owns it. Raises NotFound, or Conflict naming the owner."""
    row = daemon.state.find(INSTANCES, key)
    if row is None:
        raise NotFound("Instance not found")
    if row.location != daemon.member_id:
        raise Conflict(f"The instance is on {name_of(daemon.state, row.location)}", instance=row.name)
    return row


def built(daemon: "Daemon", key: str) -> Instance:
    """`present`, but Conflict while it is being built or moved: ask before waiting for a build's lock."""
    row = present(daemon, key)
    if row.status == "Creating":
        raise Conflict("The instance is still being created")
    if row.move is not None:
        raise Conflict("The instance is being moved")
    return row


def volume_of(row: Instance, devices: Devices | None = None) -> Volume:
    """Its volume; with the expanded devices, as large as the root disk says."""
    return Volume(row.volume, size=root_size(devices or {}))


def root_size(devices: Devices) -> int:
    """Bytes; 0 for no limit."""
    return next((size(d["size"]) for d in devices.values() if is_root(d) and d.get("size")), 0)


async def report(
    daemon: "Daemon",
    row: Instance,
    status: Status,
    volatile: dict[str, str],
    *,
    started: bool = False,
    killed: bool = False,
) -> None:
    """Tell the cluster what became of the instance; see SetInstanceStatus."""
    hold = expanded(daemon.state, row)[0].get("gpu.hold") == "always"
    known = _known(row, volatile)
    command = SetInstanceStatus(
        row.key, daemon.member_id, status, known, hold=hold, started=started, killed=killed
    )
    await daemon.store.propose(command, timeout=REPORT_WITHIN)


async def note(daemon: "Daemon", row: Instance, volatile: dict[str, str]) -> None:
    """Nothing became of it, but this is to be remembered. Whatever it holds stays its own."""
    command = SetInstanceStatus(
        row.key, daemon.member_id, row.status, _known(row, volatile), hold=True, killed=row.killed
    )
    await daemon.store.propose(command, timeout=REPORT_WITHIN)


def _known(row: Instance, volatile: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in volatile.items() if value or key in row.config}
