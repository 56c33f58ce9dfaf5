"""The files of an instance that is a copy: when it is made, and when it is brought up to date."""

import dataclasses
from typing import TYPE_CHECKING

from cluster.errors import Invalid, NotFound
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.origin import Origin, copies
from lxdpy.resources.instances.owner import built, volume_of
from lxdpy.resources.migration.files import Part, fetch, hidden_snapshot
from lxdpy.resources.snapshots import actions
from lxdpy.resources.snapshots.commands import CreateSnapshot, FinishSnapshot
from lxdpy.resources.snapshots.model import Snapshot, snapshots_of
from lxdpy.resources.snapshots.readers import used

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


RUNNING = "Failed getting exclusive access to instance: Instance is running"


async def copy(daemon: "Daemon", row: Instance, volume: Volume) -> None:
    """The volume and its snapshots. Raises NotFound for what has gone since the copy was asked for."""
    source = source_of(daemon, row.source.instance)
    snapshots = snapshots_of(daemon.state, row.key)
    parts = [Part(one.id, Volume(row.volume, snapshot=one.id)) for one in snapshots]
    await fetch(daemon, source, [*parts, Part(row.source.snapshot, volume)], row.pool)


def source_of(daemon: "Daemon", key: str) -> Instance:
    row = daemon.state.find(INSTANCES, key)
    if row is None:
        raise NotFound("The instance to copy has been deleted")
    return row


def check_refresh(daemon: "Daemon", row: Instance, origin: Origin) -> None:
    """Raises Invalid, Conflict."""
    if origin.source.type != "copy":
        raise Invalid("Only copies can be refreshed", key="source.refresh")
    if origin.source.instance == row.key:
        raise Invalid("An instance cannot be refreshed from itself", key="source.source")
    built(daemon, row.key)
    if daemon.runtime.state(row.volume).status != "Stopped":
        raise Invalid(RUNNING)


async def refresh(daemon: "Daemon", key: str, origin: Origin) -> None:
    """Make the files those of the origin as it is now, and its snapshots those of the origin.

    Each is there whole or not at all, and nothing is locked while it comes: two instances may be refreshed
    from each other.
    """
    row = built(daemon, key)
    source = source_of(daemon, origin.source.instance)
    if not origin.source.snapshot:
        await _refresh_snapshots(daemon, row, source, copies(origin, row.project, row.name))
    latest = hidden_snapshot(row)
    await _fetch_snapshot(daemon, row, source, origin.source.snapshot, latest, stays=False)


async def _refresh_snapshots(
    daemon: "Daemon", row: Instance, source: Instance, wanted: tuple[Snapshot, ...]
) -> None:
    """Those are the same that have name and time in common, as in LXD."""
    there = {(one.name, one.created_at): one for one in snapshots_of(daemon.state, row.key)}
    for which, snapshot in there.items():
        if which not in {(one.name, one.created_at) for one in wanted}:
            await actions.delete(daemon, row.key, snapshot)
    for snapshot in wanted:
        if (snapshot.name, snapshot.created_at) not in there:
            await _fetch_snapshot(daemon, row, source, snapshot.id, snapshot, stays=True)


async def _fetch_snapshot(
    daemon: "Daemon", row: Instance, source: Instance, id: str, snapshot: Snapshot, *, stays: bool
) -> None:
    """Into a snapshot, that then stays, or becomes the instance's files."""
    target = actions.volume(row, snapshot)
    with used(daemon, snapshot.id):
        await daemon.store.propose(CreateSnapshot(snapshot, daemon.member_id))
        try:
            await fetch(daemon, source, [Part(id, target)], row.pool)
            if stays:
                await daemon.store.propose(FinishSnapshot(snapshot.key, snapshot.id))
            else:
                await put(daemon, row.key, target)
        except BaseException:
            await actions.discard(daemon, row.key, snapshot)
            raise
    if not stays:
        await actions.discard(daemon, row.key, snapshot)


async def put(daemon: "Daemon", key: str, snapshot: Volume) -> None:
    """Have the instance's files be that snapshot's. Raises Invalid unless it is stopped."""
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        if daemon.runtime.state(row.volume).status != "Stopped":
            raise Invalid(RUNNING)
        driver = daemon.pools.driver(row.pool)
        size = volume_of(row, expanded(daemon.state, row)[1]).size
        await driver.restore(dataclasses.replace(snapshot, size=size))
