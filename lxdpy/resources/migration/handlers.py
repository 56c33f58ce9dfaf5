"""POST /1.0/instances/<name>: rename or move. And the files, for the member that makes or takes a copy."""

import time
from contextlib import aclosing

from aiohttp import web

from cluster.errors import Conflict, Forbidden, Invalid
from cluster.membership.model import name_of
from lxdpy.resources.instances import rename
from lxdpy.resources.instances.handlers import found, owner, resources
from lxdpy.resources.instances.model import Instance, InstancePost
from lxdpy.resources.migration import move
from lxdpy.resources.migration.files import Form, packed
from lxdpy.resources.migration.model import Relocation
from lxdpy.resources.migration.relocate import relocate
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.projects.permitted import check_target
from lxdpy.resources.remotes.offers import offer_instance
from lxdpy.resources.wire import url
from lxdpy.rest.replies import OCTETS, asynchronous
from lxdpy.rest.route import AnyCall, Call, Routes, is_true

RENAME_WITHIN = 60.0  # seconds, at the new owner

routes = Routes("/1.0/instances")
internal = Routes("/internal/1.0/instances/{name}")


@routes.on("POST", "/{name}", body=InstancePost, entitlement="can_edit", owner=owner)
async def rename_or_move(call: Call[InstancePost]) -> web.Response:
    """To another member, pool, project or name; several at once, in this order."""
    row, body = found(call), call.body
    if is_to_leave(call):
        alone = body.instance_only or body.container_only
        offered = offer_instance(call.daemon, row, body.target, resources(row), live=body.live, alone=alone)
        return asynchronous(offered)
    name, project, to = body.name or row.name, body.project or row.project, row.location
    check_project(call, row)
    if call.target or body.pool or body.project:
        move.check_move(call.daemon, row, running(call))
    if (name, project) != (row.name, row.project) or not (call.target or body.pool):
        rename.check_rename(call.daemon, row, name, project)
    if body.pool:
        move.check_pool(call.daemon, row, body.pool)
    if call.target:
        to = move.destination(call.daemon, row, call.target)
    pool = body.pool or row.pool
    moves = (to, pool) != (row.location, row.pool)

    async def run(operation: Operation) -> None:
        if moves:
            await move.move(call.daemon, row.key, to, pool, operation)
        if (name, project) != (row.name, row.project):
            await rename_at(call, to, row, name, project)

    description = "Migrating instance" if moves else "Renaming instance"
    started = call.daemon.operations.start(description, resources(row), run, project=row.project)
    return asynchronous(started)


def is_to_leave(call: Call[InstancePost]) -> bool:
    """Whether it is for another server: nothing says that it is to go anywhere here."""
    body = call.body
    return body.migration and not (call.target or body.pool or body.project)


def running(call: Call[InstancePost]) -> str:
    """Why a running instance may not do that."""
    if call.target:
        return move.LIVE if call.body.live else "Instance is running"
    noun = "pools" if call.body.pool else "projects"
    return f"Instance must be stopped to move between {noun} statelessly"


def check_project(call: Call[InstancePost], row: Instance) -> None:
    """Whether it may go where the body says. Raises Invalid, NotFound, Forbidden."""
    project = call.body.project
    if not call.identity.admin:
        check_target(call.state, row.project, call.target)
    if not project:
        return
    if project == row.project:
        raise Invalid("Requested project is the same as current project", key="project", value=project)
    if not call.identity.sees(project):
        raise Forbidden("not authorized")
    call.state.get(PROJECTS, project)


async def rename_at(call: AnyCall, member: str, row: Instance, name: str, project: str) -> None:
    """By its owner, whoever that is by now."""
    if member == call.daemon.member_id:
        await rename.rename(call.daemon, row.key, name, project)
        return
    ask, path = call.daemon.forwarder.ask, url("instances", row.name, project=row.project)
    body = InstancePost(name=name, project=project if project != row.project else "")
    begun = await ask(member, "POST", path, body)
    wait = f"/1.0/operations/{begun['id']}/wait?timeout={RENAME_WITHIN:g}"
    ended = await ask(member, "GET", wait, timeout=RENAME_WITHIN + 10)
    if ended["err"]:
        raise Invalid(f"Moved, but not renamed: {ended['err']}")


@internal.on("POST", "/relocate", body=Relocation, entitlement="can_edit", internal=True)
async def send_instance(call: Call[Relocation]) -> web.Response:
    """Give it to that member, stopped meanwhile if it runs."""
    daemon, row = call.daemon, found(call)
    to = name_of(call.state, call.body.to)

    async def run(operation: Operation) -> None:
        await relocate(daemon, row.key, operation, lambda _: None, to=to)

    started = daemon.operations.start("Migrating instance", resources(row), run, project=row.project)
    return asynchronous(started)


@internal.on("GET", "/files", entitlement="can_view", internal=True)
async def send_files(call: Call[None]) -> web.StreamResponse:
    """The instance, or its `?snapshot=` (id), as a tarball, or in the `?own=` form of the pool's driver.

    Cut off if it cannot be made to its end.
    """
    row = found(call)
    if row.location != call.daemon.member_id:
        raise Conflict("The instance is on another member", instance=row.name)
    reply = web.StreamResponse(headers={"Content-Type": OCTETS})
    form = Form(is_true(call.query("own")), call.query("parent"))
    async with aclosing(packed(call.daemon, row, call.query("snapshot"), form)) as chunks:
        first = await anext(chunks)  # what fails at once is an error that can be read
        await reply.prepare(call.request)
        await reply.write(first)
        progress = Progress(call, row, len(first))
        async for chunk in chunks:
            await reply.write(chunk)
            progress.add(len(chunk))
    await reply.write_eof()
    return reply


class Progress:
    """Of a move, in its operation, if that is this member's."""

    def __init__(self, call: AnyCall, row: Instance, done: int) -> None:
        self._name = row.name
        self._operation = call.daemon.operations.find(row.move.id) if row.move else None
        self._done = done
        self._began = time.monotonic()

    def add(self, size: int) -> None:
        self._done += size
        if self._operation is not None:
            rate = self._done / (time.monotonic() - self._began + 0.001)
            said = f"{self._name}: {self._done / 1e6:.2f}MB ({rate / 1e6:.2f}MB/s)"
            self._operation.progress(fs_progress=said)
