"""Renaming instances: recorded first, then moved on disk, so that a crash in between can be made good."""

from typing import TYPE_CHECKING

import msgspec

from cluster import failpoints
from cluster.errors import AlreadyExists, Conflict, Invalid
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.backups import model as backups
from lxdpy.resources.instances import cloud_init
from lxdpy.resources.instances import devices as device_actions
from lxdpy.resources.instances.commands import RENAMED_FROM, RenameInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.names import check_name
from lxdpy.resources.instances.owner import built, note, present
from lxdpy.resources.instances.templates import DUE
from lxdpy.resources.snapshots import readers
from lxdpy.resources.storage_volumes.disks import check_disks

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def check_rename(daemon: "Daemon", row: Instance, name: str, project: str) -> None:
    """Raises Invalid, AlreadyExists, Conflict."""
    check_name(name)
    if f"{project}/{name}" in daemon.state.rows(INSTANCES):
        raise AlreadyExists(f'Name "{name}" already in use', instance=name)
    if row.status != "Stopped":
        raise Invalid("Renaming of running instance not allowed")
    if any(one.status != "Ready" for one in backups.all_of(daemon.state, row.key)):
        raise Conflict(f"A backup is being made or deleted: {row.name}")  # by the name that it has
    if project != row.project:  # which may have volumes of its own
        check_disks(daemon.state, msgspec.structs.replace(row, name=name, project=project))


async def rename(daemon: "Daemon", key: str, name: str, project: str) -> None:
    """And have it in that project. Raises Conflict while a snapshot of it is being copied for long."""
    built(daemon, key)
    await readers.unread(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = built(daemon, key)
        check_rename(daemon, row, name, project)
        new = msgspec.structs.replace(row, name=name, project=project)
        async with daemon.lock(f"instance {new.key}"):
            with readers.going_with(daemon, key):
                row = await moved(daemon, row)
                await device_actions.forget(daemon, row, expanded(daemon.state, row)[1])
                state = await daemon.store.propose(RenameInstance(key, name, project))
                await failpoints.reach("instance.renamed")
                await moved(daemon, state.get(INSTANCES, new.key))


async def moved(daemon: "Daemon", row: Instance) -> Instance:
    """The row, its disk under its name: a rename that was cut short is made good. Under the lock."""
    before = row.config.get(RENAMED_FROM)
    if not before:
        return row
    await daemon.files.end(before)
    await daemon.pools.driver(row.pool).rename(Volume(before), row.volume)
    daemon.forget_files(before)
    due = row.config.get(DUE, "rename")  # what a first start has to make up for it makes up with the new name
    await note(daemon, row, {RENAMED_FROM: "", DUE: due} | cloud_init.another())
    return present(daemon, row.key)
