"""/1.0/instances: list, create, show, change, delete. State, exec and logs have files of their
own.
"""

from collections.abc import Iterable

import msgspec
from aiohttp import web

from cluster.errors import Error, Forbidden, Invalid, NotFound
from cluster.state.etag import check_etag
from cluster.state.txn import State
from lxdpy.resources.backups import index, restore
from lxdpy.resources.gpu_queue import asking
from lxdpy.resources.gpu_queue.turns import Turns
from lxdpy.resources.instances import change, cloud_init, create, delete
from lxdpy.resources.instances.dry_run import dry_run
from lxdpy.resources.instances.model import (
    BUILDING,
    INSTANCES,
    Instance,
    InstancePatch,
    InstancePut,
    InstanceSource,
    InstancesPost,
)
from lxdpy.resources.instances.origin import origin_of
from lxdpy.resources.migration import copy
from lxdpy.resources.operations.model import OperationView
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.projects.permitted import check_target
from lxdpy.resources.remotes import arrivals, refresh
from lxdpy.resources.snapshots import actions as snapshots
from lxdpy.resources.snapshots.readers import used
from lxdpy.resources.wire import only_set, options_set, rfc3339, url
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes, is_true, target_member

routes = Routes("/1.0/instances")

UUID = "volatile.uuid"
OF_ONE = (UUID, cloud_init.NOTE, "volatile.idmap.current")  # LXD's may lack one, and ours have the last alike


@routes.on("GET", entitlement="can_view")
async def list_instances(call: Call[None]) -> web.Response:
    rows = of_type(call, visible(call))
    noun = call.request.path.split("/")[2]  # "containers", at the name of before
    if call.recursion == 0 and not call.filter:
        return sync([url(noun, row.name, project=row.project) for row in rows])
    full = call.recursion >= 2
    if full:
        mine = [row for row in rows if row.location == call.daemon.member_id and row.status != "Stopped"]
        await call.daemon.states.fresh(mine)
    shown = [render(call, row, full=full) for row in rows]
    if call.filter:
        matches = parse(call.filter)
        decoded = [
            (row, one) for row, one in zip(rows, shown, strict=True) if matches(msgspec.json.decode(one))
        ]
        rows, shown = [row for row, _ in decoded], [one for _, one in decoded]
    if call.recursion == 0:
        return sync([url(noun, row.name, project=row.project) for row in rows])
    return sync(shown)


def of_type(call: AnyCall, rows: list[Instance]) -> list[Instance]:
    """Those of `?instance-type=`: all of them are containers."""
    wanted = call.query("instance-type", "container")
    if wanted not in ("", "container", "virtual-machine"):
        raise Invalid("Invalid instance type", key="instance-type", value=wanted)
    return [] if wanted == "virtual-machine" else rows


def visible(call: AnyCall) -> list[Instance]:
    """The rows of the project asked for, or of all that the caller sees; by project and name."""
    rows: Iterable[Instance] = call.state.rows(INSTANCES).values()
    if call.all_projects:
        rows = (row for row in rows if call.identity.sees(row.project))
    else:
        call.state.get(PROJECTS, call.project)
        rows = (row for row in rows if row.project == call.project)
    return sorted(rows, key=lambda row: (row.project, row.name))


def render(call: AnyCall, row: Instance, *, full: bool) -> msgspec.Raw:
    if full:
        return call.daemon.rendered.full(call.state, row, call.daemon.states.shown(row))
    return msgspec.Raw(call.daemon.rendered.instance(call.state, row))


@routes.on("POST", takes=InstancesPost, entitlement="can_create_instances")
async def create_instance(call: Call[None]) -> web.StreamResponse:
    if call.request.headers.get("Content-Type") == "application/octet-stream":
        return await import_backup(call)
    body = await call.json(InstancesPost)
    call.state.get(PROJECTS, call.project)
    if body.source.project and not call.identity.sees(body.source.project):
        raise Forbidden("not authorized")
    if body.source.refresh and (row := find(call.state, call.project, body.name)) is not None:
        if row.location != call.daemon.member_id:
            return await call.forward(row.location)
        return refresh_instance(call, row, body.source)
    if not call.identity.admin:
        check_target(call.state, call.project, call.target)
    count = asking.count_of(call.query("count"))
    if is_true(call.query("dry-run")):
        if count is not None:
            raise Invalid(f"A dry run is of one instance, without a count ({count})", key="count")
        return sync(dry_run(call.daemon, body, call.project, call.target, call.identity.sees))
    if body.source.type == "migration":
        row, secrets = await arrivals.record(call.daemon, body, call.project, call.target)
        return asynchronous(creating(call, row, secrets), project=elsewhere(call, row))
    made = await asking.create(call.daemon, body, call.project, call.target, count)
    if isinstance(made, Instance):
        return asynchronous(creating(call, made), project=elsewhere(call, made))
    return asynchronous(Turns(call.daemon).view(call.daemon.state, made, None), project=made.project)


async def import_backup(call: Call[None]) -> web.StreamResponse:
    """By the member that is asked, or by that of `?target=`."""
    owner = target_member(call)
    if owner is not None and owner != call.daemon.member_id:
        return await call.forward(owner)
    headers, file = call.request.headers, restore.new_name()
    call.state.get(PROJECTS, call.project)
    with used(call.daemon, file):  # until the row tells of it
        found = await restore.receive(call.daemon, call.request.content.iter_any(), file, index.parse)
        try:
            restore.check_optimized(optimized=found.optimized, admin=call.identity.admin)
            name, pool = headers.get("X-LXD-name", ""), headers.get("X-LXD-pool", "")
            wanted = restore.drafted(call.daemon.state, found, file, call.project, name, pool)
            target = call.daemon.name if call.daemon.clustered else ""
            row = await create.record(
                call.daemon, wanted.body, call.project, target, wanted.origin, asking.coming
            )
        except Error:
            restore.discard(call.daemon, file)
            raise
    return asynchronous(creating(call, row))


def refresh_instance(call: Call[None], row: Instance, source: InstanceSource) -> web.Response:
    """Of what another has become since it was copied from there."""
    if source.type == "migration":
        return asynchronous(refresh.start(call.daemon, row, source, resources(row)))
    origin = origin_of(call.state, source, call.project)
    copy.check_refresh(call.daemon, row, origin)

    async def run(_: object) -> None:
        await copy.refresh(call.daemon, row.key, origin)

    started = call.daemon.operations.start("Creating instance", resources(row), run, project=row.project)
    return asynchronous(started)


def creating(call: AnyCall, row: Instance, secrets: dict[str, str] | None = None) -> OperationView:
    """The operation that the owner starts when it applies the row, as it will look at first.

    With `secrets` it waits for who will bring what the instance is made of.
    """
    resources = {"instances": [url("instances", row.name, project=row.project)]}
    resources["containers"] = [
        path.replace("/instances/", "/containers/", 1) for path in resources["instances"]
    ]
    now = rfc3339(row.created_at)
    return OperationView(
        id=row.operation,
        kind="websocket" if secrets else "task",
        metadata=dict(secrets) if secrets else None,
        description=BUILDING[row.source.type],
        may_cancel=row.source.remote is not None,
        created_at=now,
        updated_at=now,
        resources=resources,
        location=call.daemon.name,
    )


def elsewhere(call: AnyCall, row: Instance) -> str:
    """The project, when another member runs the operation: LXD's client is then told of it in the URL."""
    return "" if row.location == call.daemon.member_id else row.project


def owner(call: AnyCall) -> str | None:
    """The member that holds the instance of the path. Raises NotFound."""
    return found(call).location


def found(call: AnyCall) -> Instance:
    row = find(call.state, call.project, call.path("name"))
    if row is None:
        raise NotFound("Instance not found", instance=call.path("name"))
    return row


def find(state: State, project: str, name: str) -> Instance | None:
    return state.find(INSTANCES, f"{project}/{name}")


@routes.on("GET", "/{name}", entitlement="can_view")
async def show_instance(call: Call[None]) -> web.Response:
    row = found(call)
    if call.recursive and row.location == call.daemon.member_id:
        await call.daemon.states.live([row])
    return sync(render(call, row, full=call.recursive), etag=change.shown_etag(row))


@routes.on("PUT", "/{name}", body=InstancePut, entitlement="can_edit", owner=owner)
async def update_instance(call: Call[InstancePut]) -> web.Response:
    row, body, etag = found(call), call.body, call.etag
    if body.restore:
        return restore_instance(call, row)

    def edit(row: Instance) -> Instance:
        return msgspec.structs.replace(
            row,
            description=body.description,
            config=only_set(own_config(row, body.config or {})),
            devices=options_set(body.devices),
            profiles=tuple(body.profiles or ()),
            ephemeral=body.ephemeral,
            architecture=body.architecture or row.architecture,
        )

    check_etag(etag, change.shown_etag(row))
    change.check(call.daemon, row, edit(row))

    async def run(_: object) -> None:
        await change.apply(call.daemon, row.key, edit, etag)

    started = call.daemon.operations.start("Updating instance", resources(row), run, project=row.project)
    return asynchronous(started)


def own_config(row: Instance, config: Config) -> Config:
    """After a refresh, LXD's client sends the config of the instance that was copied, notes and addresses
    too: those are not taken. By one alone nobody is taken for another, it is somebody's mistake.
    """
    other = [note for note in OF_ONE if config.get(note, row.config.get(note)) != row.config.get(note)]
    if UUID not in other or len(other) < 2:
        return config
    kept = {key: value for key, value in row.config.items() if key.startswith("volatile.")}
    return {key: value for key, value in config.items() if not key.startswith("volatile.")} | kept


def restore_instance(call: Call[InstancePut], row: Instance) -> web.Response:
    """Back to a snapshot, named by itself or with the instance in front."""
    snapshots.check_stateful(call.body.stateful)
    name = call.body.restore.removeprefix(f"{row.name}/")
    snapshots.check_restore(call.daemon, row, name)

    async def run(_: object) -> None:
        await snapshots.restore(call.daemon, row.key, name)

    started = call.daemon.operations.start("Restoring snapshot", resources(row), run, project=row.project)
    return asynchronous(started)


@routes.on("PATCH", "/{name}", body=InstancePatch, entitlement="can_edit", owner=owner)
async def patch_instance(call: Call[InstancePatch]) -> web.Response:
    body = call.body

    def edit(row: Instance) -> Instance:
        return msgspec.structs.replace(
            row,
            description=row.description if body.description is None else body.description,
            config=only_set(row.config | (body.config or {})),
            devices=row.devices | options_set(body.devices),
            profiles=row.profiles if body.profiles is None else tuple(body.profiles),
            ephemeral=row.ephemeral if body.ephemeral is None else body.ephemeral,
            architecture=body.architecture or row.architecture,
        )

    await change.apply(call.daemon, found(call).key, edit, call.etag)
    return sync()


@routes.on("DELETE", "/{name}", entitlement="can_delete", owner=owner)
async def delete_instance(call: Call[None]) -> web.Response:
    row = found(call)
    delete.check_delete(call.daemon, row)

    async def run(_: object) -> None:
        await delete.delete(call.daemon, row)

    started = call.daemon.operations.start("Deleting instance", resources(row), run, project=row.project)
    return asynchronous(started)


def resources(row: Instance) -> dict[str, list[str]]:
    """As in operations on the instance."""
    path = url("instances", row.name, project=row.project)
    return {"containers": [path.replace("/instances/", "/containers/", 1)], "instances": [path]}
