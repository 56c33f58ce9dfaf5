"""Records written by the owner of what they are of, as it has applied it."""

import asyncio
import logging
from typing import TYPE_CHECKING

from cluster.errors import Conflict, Error, NotFound, Unavailable
from lxdpy.host.storage import records
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.commands import RENAMED_FROM
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.recovery import record
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

Row = Instance | StorageVolume


def instance_to_tell(daemon: "Daemon", key: str) -> Instance | None:
    """The row, if it is this member's and its files are where they belong."""
    row = daemon.state.find(INSTANCES, key)
    if row is None or row.location != daemon.member_id or row.status == "Creating":
        return None
    return None if row.move is not None or RENAMED_FROM in row.config else row


def volume_to_tell(daemon: "Daemon", id: str) -> StorageVolume | None:
    row = daemon.state.find(VOLUMES, id)
    return row if row is not None and row.location == daemon.member_id and row.status == "Ready" else None


async def write(daemon: "Daemon", row: Row) -> None:
    """Have the record say what the state does. The caller has the lock. What fails is logged."""
    state = daemon.state
    volume = Volume(row.volume) if isinstance(row, Instance) else Volume(row.id, "custom")

    def told() -> None:
        text = record.of_instance(state, row) if isinstance(row, Instance) else record.of_volume(state, row)
        records.write(folder, volume, text)

    try:
        folder = daemon.pools.driver(row.pool).path(volume)
        await asyncio.to_thread(told)
    except (NotFound, Unavailable) as closed:
        log.debug("no record of %s: %s", row.name, closed.message)
    except OSError as failure:
        log.warning("the record of %s is older than it: %s", row.name, failure)


async def is_anothers(daemon: "Daemon", row: Instance) -> bool:
    """Whether where it is to be made lies another instance of that name, which the cluster does not know.

    Once the database was lost and not everything has been recovered.
    """
    try:
        folder = daemon.pools.driver(row.pool).path(Volume(row.volume))
    except (NotFound, Unavailable):
        return False
    if not folder.exists():
        return False
    try:
        found = record.instance_of(await asyncio.to_thread(records.read, folder, Volume(row.volume)))
    except (FileNotFoundError, Error):
        return False
    same = (found.container.project, found.container.name) == (row.project, row.name)
    return same and found.lxdpy.uuid != row.uuid


async def refuse_anothers(daemon: "Daemon", row: Instance) -> None:
    """Raises Conflict rather than take the place of what `is_anothers`."""
    if await is_anothers(daemon, row):
        raise Conflict(
            f'In storage pool "{row.pool}" of {daemon.name} lies an instance "{row.name}" that is not '
            "registered: `lxdpy recover` brings it back",
            instance=row.name,
            pool=row.pool,
        )
