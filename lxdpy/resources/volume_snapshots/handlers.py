"""/1.0/storage-pools/<pool>/volumes/custom/<name>/snapshots: list, take, show, edit, rename, delete."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.snapshots.draft import check_allowed
from lxdpy.resources.snapshots.handlers import date
from lxdpy.resources.snapshots.names import check_name
from lxdpy.resources.storage_volumes.handlers import custom, owner
from lxdpy.resources.storage_volumes.model import StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_snapshots import actions
from lxdpy.resources.volume_snapshots.commands import (
    RenameVolumeSnapshot,
    UpdateVolumeSnapshot,
    refuse_taken,
    snapshot_etag,
)
from lxdpy.resources.volume_snapshots.draft import taken
from lxdpy.resources.volume_snapshots.model import (
    VolumeSnapshotPost,
    VolumeSnapshotPut,
    VolumeSnapshotsPost,
    ready,
    snapshot_url,
    the_snapshot,
)
from lxdpy.resources.wire import rfc3339
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/storage-pools/{pool}/volumes/{type}/{name}/snapshots")


@routes.on("GET", entitlement="can_view")
async def list_snapshots(call: Call[None]) -> web.Response:
    row = custom(call, "Looking into")
    if call.recursive:
        return sync([{**wire(one), "name": f"{row.name}/{one.name}"} for one in ready(row)])
    return sync([snapshot_url(call.state, row, one.name) for one in ready(row)])


@routes.on("POST", body=VolumeSnapshotsPost, entitlement="can_manage_snapshots", owner=owner)
async def create_snapshot(call: Call[VolumeSnapshotsPost]) -> web.Response:
    row = custom(call, "Taking snapshots of")
    check_allowed(call.state, row.project)
    body = call.body
    expires = None if body.expires_at is None else date(body.expires_at)
    snapshot = taken(call.state, row, body.name, expires)
    check_name(snapshot.name, "storage volume")
    refuse_taken(row, snapshot.name)

    async def run(_: Operation) -> None:
        await actions.create(call.daemon, row.id, snapshot)

    return started(call, row, "Creating storage volume snapshot", run, snapshot.name)


@routes.on("GET", "/{snapshot}", entitlement="can_view")
async def show_snapshot(call: Call[None]) -> web.Response:
    one = the_snapshot(custom(call, "Looking into"), call.path("snapshot"))
    return sync(wire(one), etag=snapshot_etag(one))


@routes.on("PUT", "/{snapshot}", body=VolumeSnapshotPut, entitlement="can_manage_snapshots")
@routes.on("PATCH", "/{snapshot}", body=VolumeSnapshotPut, entitlement="can_manage_snapshots")
async def update_snapshot(call: Call[VolumeSnapshotPut]) -> web.Response:
    """What a PUT leaves out is emptied, what a PATCH leaves out is kept."""
    row = custom(call, "Changing snapshots of")
    one, body = the_snapshot(row, call.path("snapshot")), call.body
    whole = call.request.method == "PUT"
    description = body.description if whole or body.description is not None else one.description
    expires = date(body.expires_at) if whole or body.expires_at is not None else one.expires_at
    command = UpdateVolumeSnapshot(row.id, one.name, description or "", expires, call.etag)
    await call.store.propose(command)
    return sync()


@routes.on("POST", "/{snapshot}", body=VolumeSnapshotPost, entitlement="can_manage_snapshots")
async def rename_snapshot(call: Call[VolumeSnapshotPost]) -> web.Response:
    row, name = custom(call, "Renaming snapshots of"), call.body.name
    one = the_snapshot(row, call.path("snapshot"))
    check_name(name, "storage volume")
    refuse_taken(row, name)

    async def run(_: Operation) -> None:
        await call.store.propose(RenameVolumeSnapshot(row.id, one.name, name))

    return started(call, row, "Renaming storage volume snapshot", run, one.name)


@routes.on("DELETE", "/{snapshot}", entitlement="can_manage_snapshots", owner=owner)
async def delete_snapshot(call: Call[None]) -> web.Response:
    row = custom(call, "Deleting snapshots of")
    one = the_snapshot(row, call.path("snapshot"))

    async def run(_: Operation) -> None:
        await actions.delete(call.daemon, row.id, one.id)

    return started(call, row, "Deleting storage volume snapshot", run, one.name)


def started(call: AnyCall, row: StorageVolume, what: str, run: Any, name: str) -> web.Response:
    resources = {"storage_volume_snapshots": [snapshot_url(call.state, row, name)]}
    return asynchronous(call.daemon.operations.start(what, resources, run, project=row.project))


def wire(one: VolumeSnapshot) -> Mapping[str, object]:
    return {
        "name": one.name,
        "description": one.description,
        "config": one.config,
        "content_type": "filesystem",
        "created_at": rfc3339(one.created_at),
        "expires_at": rfc3339(one.expires_at),
    }
