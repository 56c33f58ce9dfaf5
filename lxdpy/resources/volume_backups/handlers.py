"""/1.0/storage-pools/<pool>/volumes/custom/<name>/backups: list, create, show, rename, delete, export."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

from aiohttp import web

from lxdpy.resources.announce import announce
from lxdpy.resources.backups.handlers import check_allowed, check_backup_name
from lxdpy.resources.compression import BACKUPS, compression_of
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.operations.registry import Work
from lxdpy.resources.snapshots.handlers import date
from lxdpy.resources.snapshots.names import next_name
from lxdpy.resources.storage_volumes.handlers import custom, owner
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeBackup, volume_url
from lxdpy.resources.volume_backups import actions
from lxdpy.resources.volume_backups.commands import RenameVolumeBackup, refuse_taken
from lxdpy.resources.volume_backups.model import (
    VolumeBackupPost,
    VolumeBackupsPost,
    backup_url,
    ready,
    the_backup,
)
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.replies import asynchronous, file, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/storage-pools/{pool}/volumes/{type}/{name}/backups")


@routes.on("GET", entitlement="can_view")
async def list_backups(call: Call[None]) -> web.Response:
    row = custom(call, "Looking into")
    return sync([wire(one) if call.recursive else backup_url(row, one.name) for one in ready(row)])


@routes.on("POST", body=VolumeBackupsPost, entitlement="can_manage_backups", owner=owner)
async def create_backup(call: Call[VolumeBackupsPost]) -> web.Response:
    row, body = custom(call, "Making backups of"), call.body
    check_allowed(call.state, row.project)
    name = body.name or next_name("backup%d", {one.name for one in row.backups}, datetime.now(UTC))
    check_backup_name(name)
    refuse_taken(row, name)
    backup = VolumeBackup(
        id=uuid4().hex,
        name=name,
        created_at=time.time(),
        expires_at=date(body.expires_at),
        volume_only=body.volume_only,
        optimized=body.optimized_storage,
    )
    compression = compression_of(call.state, row.project, BACKUPS, body.compression_algorithm)

    async def run(operation: Operation) -> None:
        await actions.create(call.daemon, row.id, backup, compression, operation)

    return started(call, row, "Creating custom volume backup", run, name)


@routes.on("GET", "/{backup}", entitlement="can_view")
async def show_backup(call: Call[None]) -> web.Response:
    return sync(wire(found(call)[1]))


@routes.on("POST", "/{backup}", body=VolumeBackupPost, entitlement="can_manage_backups")
async def rename_backup(call: Call[VolumeBackupPost]) -> web.Response:
    (row, one), name = found(call), call.body.name
    check_backup_name(name)
    refuse_taken(row, name)

    async def run(_: Operation) -> None:
        await call.store.propose(RenameVolumeBackup(row.id, one.name, name))

    return started(call, row, "Renaming custom volume backup", run, one.name)


@routes.on("DELETE", "/{backup}", entitlement="can_manage_backups", owner=owner)
async def delete_backup(call: Call[None]) -> web.Response:
    row, one = found(call)

    async def run(_: Operation) -> None:
        await actions.delete(call.daemon, row.id, one.id)

    return started(call, row, "Deleting custom volume backup", run, one.name)


@routes.on("GET", "/{backup}/export", entitlement="can_view", owner=owner)
async def export_backup(call: Call[None]) -> web.StreamResponse:
    row, one = found(call)
    announce(call.daemon, "storage-volume-backup-retrieved", backup_url(row, one.name), row.project)
    return file(actions.path_of(call.daemon, one.id), filename="")


def found(call: AnyCall) -> tuple[StorageVolume, VolumeBackup]:
    """The volume and the backup of the path. Raises NotFound."""
    row = custom(call, "Looking into")
    return row, the_backup(row, call.path("backup"))


def started(call: AnyCall, row: StorageVolume, what: str, run: Work, name: str) -> web.Response:
    """LXD's client reads the backup's name out of a path that leads nowhere."""
    resources = {"backups": [f"/1.0/backups/{name}"], "storage_volumes": [volume_url(call.state, row)]}
    return asynchronous(call.daemon.operations.start(what, resources, run, project=row.project))


def wire(one: VolumeBackup) -> Mapping[str, object]:
    return {
        "name": one.name,
        "created_at": rfc3339(one.created_at),
        "expires_at": rfc3339(one.expires_at),
        "volume_only": one.volume_only,
        "optimized_storage": one.optimized,
    }
