"""/1.0/instances/<name>/backups: list, create, show, rename, delete, export."""

import time
from datetime import UTC, datetime
from uuid import uuid4

from aiohttp import web

from cluster.errors import AlreadyExists, Forbidden, Invalid, NotFound
from cluster.state.txn import State
from lxdpy.resources.announce import announce
from lxdpy.resources.backups import actions
from lxdpy.resources.backups.commands import RenameBackup
from lxdpy.resources.backups.model import BACKUPS, Backup, BackupPost, BackupsPost, all_of
from lxdpy.resources.backups.shown import wire
from lxdpy.resources.compression import BACKUPS as COMPRESSION
from lxdpy.resources.compression import compression_of
from lxdpy.resources.instances.handlers import found as found_instance
from lxdpy.resources.instances.handlers import owner
from lxdpy.resources.instances.owner import built
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.projects.model import PROJECTS, on
from lxdpy.resources.snapshots.handlers import date
from lxdpy.resources.snapshots.names import next_name
from lxdpy.resources.wire import check_name, url
from lxdpy.rest.replies import asynchronous, file, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/instances/{name}/backups")


@routes.on("GET", entitlement="can_view")
async def list_backups(call: Call[None]) -> web.Response:
    rows = [row for row in all_of(call.state, found_instance(call).key) if row.status == "Ready"]
    return sync([wire(row) if call.recursive else path(row) for row in rows])


@routes.on("POST", body=BackupsPost, entitlement="can_manage_backups", owner=owner)
async def create_backup(call: Call[BackupsPost]) -> web.Response:
    instance, body = found_instance(call), call.body
    check_allowed(call.state, instance.project)
    built(call.daemon, instance.key)
    taken = {row.name for row in all_of(call.state, instance.key)}
    name = body.name or next_name("backup%d", taken, datetime.now(UTC))
    check_backup_name(name)
    row = Backup(
        project=instance.project,
        instance=instance.name,
        name=name,
        id=uuid4().hex,
        created_at=time.time(),
        expires_at=date(body.expires_at),
        instance_only=body.instance_only or body.container_only,
        optimized=body.optimized_storage,
    )
    if call.state.find(BACKUPS, row.key) is not None:
        raise AlreadyExists(f'Backup "{row.instance}/{row.name}" already exists', backup=row.name)
    compression = compression_of(call.state, instance.project, COMPRESSION, body.compression_algorithm)

    async def run(operation: Operation) -> None:
        await actions.create(call.daemon, instance.key, row, compression, operation)

    started = call.daemon.operations.start("Backing up instance", resources(row), run, project=row.project)
    return asynchronous(started)


def check_backup_name(name: str) -> None:
    """Raises Invalid."""
    if "/" in name:
        raise Invalid("Backup names may not contain slashes", key="name", value=name)
    check_name("Backup", name)


def check_allowed(state: State, project: str) -> None:
    """Raises Forbidden in a restricted project that may make none."""
    config = state.get(PROJECTS, project).config
    if on(config, "restricted") and config.get("restricted.backups") != "allow":
        raise Forbidden(f'Project "{project}" doesn\'t allow for backup creation')


@routes.on("GET", "/{backup}", entitlement="can_view")
async def show_backup(call: Call[None]) -> web.Response:
    return sync(wire(found(call)))


@routes.on("POST", "/{backup}", body=BackupPost, entitlement="can_manage_backups")
async def rename_backup(call: Call[BackupPost]) -> web.Response:
    row, name = found(call), call.body.name
    check_backup_name(name)

    async def run(_: object) -> None:
        await call.store.propose(RenameBackup(row.key, name))

    operations = call.daemon.operations
    started = operations.start("Renaming instance backup", resources(row), run, project=row.project)
    return asynchronous(started)


@routes.on("DELETE", "/{backup}", entitlement="can_manage_backups", owner=owner)
async def delete_backup(call: Call[None]) -> web.Response:
    row = found(call)

    async def run(_: object) -> None:
        await actions.delete(call.daemon, row)

    operations = call.daemon.operations
    started = operations.start("Removing instance backup", resources(row), run, project=row.project)
    return asynchronous(started)


@routes.on("GET", "/{backup}/export", entitlement="can_view", owner=owner)
async def export_backup(call: Call[None]) -> web.StreamResponse:
    row = found(call)
    announce(call.daemon, "instance-backup-retrieved", path(row), row.project)
    return file(actions.path_of(call.daemon, row), filename="")


def found(call: AnyCall) -> Backup:
    """The backup of the path. Raises NotFound."""
    row = call.state.find(BACKUPS, f"{found_instance(call).key}/{call.path('backup')}")
    if row is None or row.status != "Ready":
        raise NotFound("Instance backup not found", backup=call.path("backup"))
    return row


def path(row: Backup) -> str:
    return url("instances", row.instance, "backups", row.name, project=row.project)


def resources(row: Backup) -> dict[str, list[str]]:
    """As in operations on the backup; LXD's client reads the name out of a path that leads nowhere."""
    instance = url("instances", row.instance, project=row.project)
    return {
        "containers": [instance.replace("/instances/", "/containers/", 1)],
        "instances": [instance],
        "backups": [f"/1.0/backups/{row.name}"],
    }
