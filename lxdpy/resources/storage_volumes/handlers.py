"""/1.0/storage-pools/<pool>/volumes: list and show all; make, change, rename, move, delete custom ones."""

import time
from collections.abc import Iterable
from contextlib import ExitStack, aclosing, suppress
from uuid import uuid4

import msgspec
from aiohttp import web

from cluster.errors import AlreadyExists, Error, Invalid, NotFound, Unsupported
from cluster.membership.model import is_clustered, member_named
from cluster.state.etag import etag_of
from lxdpy.host.storage.driver import Volume as HostVolume
from lxdpy.host.storage.registry import volume_keys
from lxdpy.resources.backups.restore import check_optimized, discard, new_name, receive
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.projects.model import PROJECTS, home, on
from lxdpy.resources.remotes import volumes as remotes
from lxdpy.resources.remotes.model import peer_of
from lxdpy.resources.snapshots.readers import used
from lxdpy.resources.storage_pools.model import POOLS, Pool
from lxdpy.resources.storage_volumes import actions
from lxdpy.resources.storage_volumes.commands import RenameVolume, volume_etag
from lxdpy.resources.storage_volumes.disks import FEATURE, users
from lxdpy.resources.storage_volumes.listed import Volume, of_custom, type_of, volumes
from lxdpy.resources.storage_volumes.model import (
    VOLUMES,
    StorageVolume,
    VolumePost,
    VolumePut,
    VolumeSource,
    VolumesPost,
    the_volume,
    volume_url,
)
from lxdpy.resources.storage_volumes.model import volumes as known_volumes
from lxdpy.resources.volume_backups import index, restore
from lxdpy.resources.volume_backups.model import ready as ready_backups
from lxdpy.resources.volume_snapshots import actions as snapshots
from lxdpy.resources.volume_snapshots import refresh as again
from lxdpy.resources.volume_snapshots.commands import refuse_running
from lxdpy.resources.volume_snapshots.model import ready, the_snapshot
from lxdpy.resources.wire import check_name, only_set, url
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes, target_member

routes = Routes("/1.0/storage-pools/{pool}/volumes")
internal = Routes("/internal/1.0")


def owner(call: AnyCall) -> str | None:
    """The member that has the files: of a container or a custom volume. Of an image any that has it."""
    kind = type_of(call)
    if kind == "custom":
        return found(call).location
    row = call.state.find(INSTANCES, f"{call.project}/{call.path('name')}")
    return row.location if row is not None and kind == "container" else None


@routes.on("GET", entitlement="can_view")
async def list_volumes(call: Call[None]) -> web.Response:
    return listed(call, await volumes(call, ("container", "image", "custom")))


@routes.on("GET", "/{type}", entitlement="can_view")
async def list_volumes_of_type(call: Call[None]) -> web.Response:
    return listed(call, await volumes(call, (type_of(call),)))


def listed(call: AnyCall, rows: Iterable[Volume]) -> web.Response:
    matches, clustered = parse(call.filter), is_clustered(call.state)
    shown = [row for row in rows if matches(msgspec.to_builtins(row))]
    if call.recursive:
        return sync(shown)
    return sync([row.url(call.path("pool"), clustered=clustered) for row in shown])


@routes.on("POST", takes=VolumesPost, entitlement="can_create_storage_volumes", owner=target_member)
async def create_volume(call: Call[None]) -> web.Response:
    if call.request.headers.get("Content-Type") == "application/octet-stream":
        return await import_backup(call, "custom")
    body = await call.json(VolumesPost)
    return await create(call, body, body.type)


@routes.on(
    "POST", "/{type}", takes=VolumesPost, entitlement="can_create_storage_volumes", owner=target_member
)
async def create_volume_of_type(call: Call[None]) -> web.Response:
    if call.request.headers.get("Content-Type") == "application/octet-stream":
        return await import_backup(call, call.path("type"))
    return await create(call, await call.json(VolumesPost), call.path("type"))


async def import_backup(call: AnyCall, kind: str) -> web.Response:
    """What is wrong with the file is told at once, before the operation begins."""
    check_kind(kind)
    pool, own = call.state.get(POOLS, call.path("pool")), home(call.state, call.project, FEATURE)
    call.state.get(PROJECTS, own)
    file = new_name()
    with ExitStack() as kept:  # by the operation, once that has it
        kept.enter_context(used(call.daemon, file))
        kept.callback(discard, call.daemon, file)
        found = await receive(call.daemon, call.request.content.iter_any(), file, index.parse)
        check_optimized(optimized=found.optimized, admin=call.identity.admin)
        name = call.request.headers.get("X-LXD-name", "") or found.name
        check_volume_name(name)
        row = restore.drafted(found, pool, own, name, call.daemon.member_id)
        check_free(call, row)
        until_built = kept.pop_all()

    async def run(_: Operation) -> None:
        with until_built:
            await actions.create(call.daemon, row, lambda: restore.build(call.daemon, row, found, file))

    resources = {"storage_volumes": [volume_url(call.state, row)]}
    operations = call.daemon.operations
    started = operations.start("Restoring custom volume backup", resources, run, project=call.project)
    return asynchronous(started)


def check_kind(kind: str) -> None:
    """Raises Invalid."""
    if kind != "custom":
        raise Invalid(f'Currently not allowed to create storage volumes of type "{kind}"', key="type")


async def create(call: AnyCall, body: VolumesPost, kind: str) -> web.Response:
    """Empty: answered when it is there, as LXD does; a copy is an operation."""
    if comes_from_afar(call, body.source):
        return take(call, body, kind)
    row = drafted(call, body, kind)
    if not body.source.name and body.source.type in ("", "none"):
        await actions.create(call.daemon, row)
        return sync()
    source, snapshot = source_of(call, body.source, row)
    there = next(known_volumes(call.state, row.pool, row.project, row.name, row.location), None)
    if body.source.refresh and there is not None:
        await let_go(call, body.source)
        only = bool(snapshot) or body.source.volume_only  # a snapshot has no snapshots
        return refresh(call, there, source, snapshot, volume_only=only)
    row = msgspec.structs.replace(
        row,
        config=source.config if body.config is None else row.config,
        description=body.description or source.description,
        snapshots=() if snapshot or body.source.volume_only else tuple(ready(source)),
    )
    check_free(call, row)
    await let_go(call, body.source)

    async def run(_: Operation) -> None:
        await actions.create_copy(call.daemon, row, source, snapshot)

    return asynchronous(call.daemon.operations.start("Copying storage volume", {}, run, project=call.project))


def refresh(
    call: AnyCall, row: StorageVolume, source: StorageVolume, snapshot: str, *, volume_only: bool
) -> web.Response:
    """The same as its source again."""
    refuse_running(call.state, row)

    async def run(_: Operation) -> None:
        await again.refresh(call.daemon, row, source, snapshot, volume_only=volume_only)

    return asynchronous(call.daemon.operations.start("Copying storage volume", {}, run, project=call.project))


def drafted(call: AnyCall, body: VolumesPost, kind: str) -> StorageVolume:
    """The row, on this member, with its name and config checked."""
    pool = call.state.get(POOLS, call.path("pool"))
    check_volume_name(body.name)
    if not kind:
        raise Invalid("You must provide a storage volume type of the storage volume", key="type")
    check_kind(kind)
    if body.content_type in ("block", "iso"):
        raise Unsupported(f'Content type "{body.content_type}" is for virtual machines', key="content_type")
    if body.content_type not in ("", "filesystem"):
        raise Invalid("Invalid volume content type name", key="content_type", value=body.content_type)
    preset = {
        key.removeprefix("volume."): value for key, value in pool.config.items() if key.startswith("volume.")
    }
    config = checked(pool, preset | only_set(body.config))
    own = home(call.state, call.project, FEATURE)
    name = (pool.name, own, body.name, call.daemon.member_id)
    return StorageVolume(uuid4().hex, *name, body.description, config, created_at=time.time())


def checked(pool: Pool, config: dict[str, str]) -> dict[str, str]:
    """What is set of it. Raises Invalid, naming the key."""
    config = volume_keys(pool.driver).checked(config)
    if on(config, "security.shifted") and on(config, "security.unmapped"):
        raise Invalid("security.unmapped and security.shifted are mutually exclusive", key="security.shifted")
    return config


def source_of(call: AnyCall, given: VolumeSource, new: StorageVolume) -> tuple[StorageVolume, str]:
    """What a copy is made of: a volume, and the id of its snapshot `volume/snapshot`. Raises NotFound."""
    if given.type not in ("copy", "migration"):
        raise Invalid(f'Unknown source type "{given.type}"', key="source.type")
    own = home(call.state, given.project or call.project, FEATURE)
    if not call.identity.sees(own):
        raise NotFound("Storage pool volume not found", volume=given.name)
    member = member_named(call.state, given.location).id if given.location else ""
    if given.type == "migration":
        member = offering(call, given.operation) or ""
    pool = call.state.get(POOLS, given.pool or new.pool).name
    name, _, snapshot = given.name.partition("/")
    row = the_volume(call.state, pool, own, name, member)
    return row, the_snapshot(row, snapshot).id if snapshot else ""


def offering(call: AnyCall, operation: str) -> str | None:
    """The member (id) whose offer that is: the client copies so between members too."""
    return call.daemon.operations.owner(call.state, operation.rpartition("/")[2])


def comes_from_afar(call: AnyCall, source: VolumeSource) -> bool:
    if source.type != "migration":
        return False
    return source.mode == "push" or offering(call, source.operation) is None


def take(call: AnyCall, body: VolumesPost, kind: str) -> web.Response:
    """Of another server, which is called or calls."""
    source, theirs = body.source, body.config or {}
    known = restore.known_config(call.state.get(POOLS, call.path("pool")), theirs)
    row = drafted(call, msgspec.structs.replace(body, config=known), kind)
    if source.mode not in ("", "pull", "push"):
        raise Unsupported(f"Mode {source.mode} not implemented", key="source.mode", value=source.mode)
    pulls = source.mode != "push"
    peer = peer_of(source.operation, source.certificate, source.secrets, "source") if pulls else None
    there = next(known_volumes(call.state, row.pool, row.project, row.name, row.location), None)
    if source.refresh and there is not None:
        refuse_running(call.state, there)
        row = there
    else:
        check_free(call, row)
    return asynchronous(remotes.take(call.daemon, row, peer, theirs, call.project, alone=source.volume_only))


async def let_go(call: AnyCall, source: VolumeSource) -> None:
    """End the offer of another member of ours: the files are fetched without it."""
    if source.type != "migration":
        return
    id = source.operation.rpartition("/")[2]
    member = offering(call, source.operation)
    with suppress(Error):  # it ends by itself, too
        if member == call.daemon.member_id:
            (await call.daemon.operations.get(id)).cancel()
        elif member is not None:
            await call.daemon.forwarder.ask(member, "DELETE", f"/1.0/operations/{id}")


def check_free(call: AnyCall, new: StorageVolume) -> None:
    """Raises AlreadyExists: for what is an operation otherwise, which would fail later."""
    if any(known_volumes(call.state, new.pool, new.project, new.name, new.location)):
        raise AlreadyExists("Volume by that name already exists", volume=new.name)


@routes.on("GET", "/{type}/{name}", entitlement="can_view")
async def show_volume(call: Call[None]) -> web.Response:
    if type_of(call) == "custom":
        row = found(call)
        return sync(of_custom(call, row), etag=volume_etag(row))
    for shown in await volumes(call, (type_of(call),)):
        if shown.name == call.path("name"):
            return sync(shown, etag=etag_of(shown.name, shown.type, shown.config))
    raise NotFound("Storage pool volume not found", volume=call.path("name"))


@routes.on("PUT", "/{type}/{name}", body=VolumePut, entitlement="can_edit", owner=owner)
async def update_volume(call: Call[VolumePut]) -> web.Response:
    row = custom(call, "Changing")
    if call.body.restore:
        await snapshots.restore(call.daemon, row.id, call.body.restore)
        return sync()
    return await update(call, row, call.body.description or "", call.body.config or {})


@routes.on("PATCH", "/{type}/{name}", body=VolumePut, entitlement="can_edit", owner=owner)
async def patch_volume(call: Call[VolumePut]) -> web.Response:
    row = custom(call, "Changing")
    description = row.description if call.body.description is None else call.body.description
    return await update(call, row, description, {**row.config, **(call.body.config or {})})


async def update(call: AnyCall, row: StorageVolume, description: str, config: dict[str, str]) -> web.Response:
    config = checked(call.state.get(POOLS, row.pool), config)
    await actions.change(call.daemon, row, description, config, call.etag)
    return sync()


@routes.on("POST", "/{type}/{name}", body=VolumePost, entitlement="can_edit", owner=owner)
async def rename_volume(call: Call[VolumePost]) -> web.Response:
    """Renamed at once; into another pool it is copied and then removed, which is an operation."""
    body = call.body
    check_volume_name(body.name)
    row = custom(call, "Renaming")
    if body.migration:
        return asynchronous(
            remotes.offer(call.daemon, row, body.target, call.project, alone=body.volume_only)
        )
    if body.project and not call.identity.sees(body.project):
        raise NotFound(f"Project not found: {body.project}", project=body.project)
    project = home(call.state, body.project, FEATURE) if body.project else row.project
    if body.pool in ("", row.pool):
        await call.store.propose(RenameVolume(row.id, body.name, project))
        return sync(location=url(f"storage-pools/{row.pool}/volumes/custom", body.name, project=project))
    return move(call, row, body.pool, body.name, project)


def move(call: AnyCall, row: StorageVolume, pool: str, name: str, project: str) -> web.Response:
    """To another pool of the same member."""
    call.state.get(POOLS, pool)
    if users(call.state, row):
        raise Invalid("The storage volume is still in use", volume=row.name)

    def moved(row: StorageVolume) -> StorageVolume:
        return msgspec.structs.replace(
            row,
            id=uuid4().hex,
            pool=pool,
            name=name,
            project=project,
            snapshots=tuple(ready(row)),
            backups=tuple(ready_backups(row)),
        )

    check_free(call, moved(row))

    async def run(_: Operation) -> None:
        await actions.move(call.daemon, row.id, moved)

    return asynchronous(call.daemon.operations.start("Moving storage volume", {}, run, project=call.project))


@routes.on("DELETE", "/{type}/{name}", entitlement="can_delete", owner=owner)
async def delete_volume(call: Call[None]) -> web.Response:
    if type_of(call) != "custom":
        raise Invalid(
            f'Storage volumes of type "{type_of(call)}" cannot be deleted with the storage API', key="type"
        )
    await actions.remove(call.daemon, found(call).id)
    return sync()


@routes.on("GET", "/{type}/{name}/state", entitlement="can_view", owner=owner)
async def show_state(call: Call[None]) -> web.Response:
    if type_of(call) == "custom":
        row = found(call)
        used, total = await actions.used(call.daemon, row), actions.on_disk(row).size
        return sync({"usage": {"used": used, **({"total": total} if total else {})}})
    if type_of(call) != "container":
        raise Unsupported("Not supported")
    instance = call.state.get(INSTANCES, f"{call.project}/{call.path('name')}")
    used = await call.daemon.pools.driver(call.path("pool")).used(HostVolume(instance.volume))
    return sync({"usage": {"used": used}})


@internal.on("GET", "/storage-pools/{pool}/images", entitlement="can_view", internal=True)
async def list_own_images(call: Call[None]) -> web.Response:
    return sync(await call.daemon.pools.driver(call.path("pool")).images())


@internal.on("GET", "/storage-volumes/{id}", internal=True)
async def send_files(call: Call[None]) -> web.StreamResponse:
    """One of this member's as a tarball, or its snapshot (`?snapshot=` id), for a member that copies it."""
    row = call.state.get(VOLUMES, call.path("id"))
    reply = web.StreamResponse()
    async with aclosing(actions.files(call.daemon, row, call.request.query.get("snapshot", ""))) as chunks:
        first = await anext(chunks, b"")  # what fails at once is an answer yet
        await reply.prepare(call.request)
        await reply.write(first)
        async for chunk in chunks:
            await reply.write(chunk)
    await reply.write_eof()
    return reply


def found(call: AnyCall) -> StorageVolume:
    """The custom volume of the path, on the member that `?target=` names. Raises NotFound, Invalid."""
    call.state.get(POOLS, call.path("pool"))
    call.state.get(PROJECTS, call.project)
    own = home(call.state, call.project, FEATURE)
    return the_volume(call.state, call.path("pool"), own, call.path("name"), target_member(call) or "")


def custom(call: AnyCall, what: str) -> StorageVolume:
    """Raises Invalid for other types: instances and images are changed by nouns of their own."""
    if type_of(call) != "custom":
        raise Invalid(f'{what} storage volumes of type "{type_of(call)}" is not allowed', key="type")
    return found(call)


def check_volume_name(name: str) -> None:
    check_name("Storage volume", name)
