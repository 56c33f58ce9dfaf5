"""/1.0/instances/<name>/snapshots: list, create, show, edit, rename, delete."""

import time

from aiohttp import web

from cluster.errors import AlreadyExists, Invalid, NotFound
from cluster.state.etag import check_etag
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.handlers import found as found_instance
from lxdpy.resources.instances.handlers import owner
from lxdpy.resources.remotes.offers import offer_snapshot
from lxdpy.resources.snapshots import actions
from lxdpy.resources.snapshots.commands import ExpireSnapshot, RenameSnapshot, snapshot_etag
from lxdpy.resources.snapshots.draft import check_allowed, expiry, taken, unnamed
from lxdpy.resources.snapshots.model import (
    SNAPSHOTS,
    Snapshot,
    SnapshotPost,
    SnapshotPut,
    SnapshotsPost,
    snapshots_of,
)
from lxdpy.resources.snapshots.names import check_name
from lxdpy.resources.snapshots.shown import wire
from lxdpy.resources.wire import seconds_of, url
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/instances/{name}/snapshots")


@routes.on("GET", entitlement="can_view")
async def list_snapshots(call: Call[None]) -> web.Response:
    row = found_instance(call)
    rows = snapshots_of(call.state, row.key)
    if call.recursive:
        return sync([wire(call.state, snapshot) for snapshot in rows])
    return sync([path(snapshot) for snapshot in rows])


@routes.on("POST", body=SnapshotsPost, entitlement="can_manage_snapshots", owner=owner)
async def create_snapshot(call: Call[SnapshotsPost]) -> web.Response:
    row, body = found_instance(call), call.body
    check_allowed(call.state, row.project)
    actions.check_stateful(body.stateful)
    now = time.time()
    config = expanded(call.state, row)[0]
    name = body.name or unnamed(call.state, row, config, now)
    check_name(name)
    if call.state.find(SNAPSHOTS, f"{row.key}/{name}") is not None:
        raise AlreadyExists(f'Snapshot "{row.name}/{name}" already exists', snapshot=name)
    expires = expiry(config, now) if body.expires_at is None else date(body.expires_at)
    snapshot = taken(row, name, now, expires)

    async def run(_: object) -> None:
        await actions.create(call.daemon, row.key, snapshot)

    operations = call.daemon.operations
    started = operations.start("Snapshotting instance", resources(snapshot), run, project=row.project)
    return asynchronous(started)


@routes.on("GET", "/{snapshot}", entitlement="can_view")
async def show_snapshot(call: Call[None]) -> web.Response:
    row = found(call)
    return sync(wire(call.state, row), etag=snapshot_etag(row))


@routes.on("PUT", "/{snapshot}", body=SnapshotPut, entitlement="can_manage_snapshots")
@routes.on("PATCH", "/{snapshot}", body=SnapshotPut, entitlement="can_manage_snapshots")
async def update_snapshot(call: Call[SnapshotPut]) -> web.Response:
    """Nothing but its expiry can be changed."""
    row, etag = found(call), call.etag
    given = call.body.expires_at
    expires = date(given) if given is not None or call.request.method == "PUT" else row.expires_at
    check_etag(etag, snapshot_etag(row))

    async def run(_: object) -> None:
        await call.store.propose(ExpireSnapshot(row.key, expires, etag))

    operations = call.daemon.operations
    started = operations.start("Updating snapshot", resources(row), run, project=row.project)
    return asynchronous(started)


@routes.on("POST", "/{snapshot}", body=SnapshotPost, entitlement="can_manage_snapshots", owner=owner)
async def rename_snapshot(call: Call[SnapshotPost]) -> web.Response:
    row, name = found(call), call.body.name
    if call.body.migration:
        instance, target = found_instance(call), call.body.target
        return asynchronous(offer_snapshot(call.daemon, instance, row, target, resources(row)))
    check_name(name)
    if call.state.find(SNAPSHOTS, f"{row.project}/{row.instance}/{name}") is not None:
        raise AlreadyExists(f"Name '{row.instance}/{name}' already in use", snapshot=name)

    async def run(_: object) -> None:
        await call.store.propose(RenameSnapshot(row.key, name))

    operations = call.daemon.operations
    started = operations.start("Renaming snapshot", resources(row), run, project=row.project)
    return asynchronous(started)


@routes.on("DELETE", "/{snapshot}", entitlement="can_manage_snapshots", owner=owner)
async def delete_snapshot(call: Call[None]) -> web.Response:
    instance, row = found_instance(call), found(call)

    async def run(_: object) -> None:
        await actions.delete(call.daemon, instance.key, row)

    operations = call.daemon.operations
    started = operations.start("Deleting snapshot", resources(row), run, project=row.project)
    return asynchronous(started)


def found(call: AnyCall) -> Snapshot:
    """The snapshot of the path. Raises NotFound."""
    instance = found_instance(call)
    row = call.state.find(SNAPSHOTS, f"{instance.key}/{call.path('snapshot')}")
    if row is None or row.status != "Ready":
        raise NotFound("Instance snapshot not found", snapshot=call.path("snapshot"))
    return row


def date(text: str | None) -> float:
    """Unix seconds; 0: never. Raises Invalid."""
    try:
        return seconds_of(text)
    except ValueError:
        raise Invalid(f"Not a date: {text}", key="expires_at", value=str(text)) from None


def path(row: Snapshot) -> str:
    return url("instances", row.instance, "snapshots", row.name, project=row.project)


def resources(row: Snapshot) -> dict[str, list[str]]:
    """As in operations on the snapshot."""
    instance = url("instances", row.instance, project=row.project)
    return {
        "containers": [instance.replace("/instances/", "/containers/", 1)],
        "instances": [instance],
        "instances_snapshots": [path(row)],
    }
