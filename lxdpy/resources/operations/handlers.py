"""/1.0/operations. Source: LXD doc/rest-api.yaml, tag "operations".

An id does not say its project, so routes ask for `can_view` only and `visible` looks at the operation itself.
Tokens are for admins: whoever sees one may join or be trusted.
"""

import asyncio
import hmac
from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Error, Forbidden, Invalid, NotFound
from lxdpy.resources.announce import announce
from lxdpy.resources.operations.model import OperationView
from lxdpy.resources.operations.operation import Operation
from lxdpy.rest.patience import is_there, while_true
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/operations")
internal = Routes("/internal/operations")

PEER_ANSWERS_WITHIN = 1.0  # seconds; a list must not wait for a member that just died

Rows = list[dict[str, Any]]


def owner(call: AnyCall) -> str | None:
    return call.daemon.operations.owner(call.state, call.path("id"))


@routes.on("GET", entitlement="can_view")
async def list_operations(call: Call[None]) -> web.StreamResponse:
    rows = [row for row in await everywhere(call) if listed(call, row)]
    grouped: dict[str, list[object]] = {}
    for row in sorted(rows, key=lambda row: str(row["created_at"])):
        shown = shorn(row) if call.recursive else f"/1.0/operations/{row['id']}"
        grouped.setdefault(str(row["status"]).lower(), []).append(shown)
    return sync(grouped)


@internal.on("GET", internal=True)
async def list_own_operations(call: Call[None]) -> web.StreamResponse:
    """What another member merges into its list."""
    return sync(own(call))


@routes.on("GET", "/{id}", entitlement="can_view", owner=owner)
async def show_operation(call: Call[None]) -> web.StreamResponse:
    if (row := replicated(call) or await queued(call)) is not None:
        return sync(row)
    return sync((await visible(call)).shown())


@routes.on("DELETE", "/{id}", entitlement="can_view", owner=owner)
async def cancel_operation(call: Call[None]) -> web.StreamResponse:
    operations, id, project = call.daemon.operations, call.path("id"), ""
    if operations.replicated is not None and replicated(call) is not None:
        await operations.replicated.cancel(id)
    elif operations.queued is not None and await queued(call) is not None:
        await operations.queued.cancel(id)
    else:
        operation = await visible(call)
        operation.cancel()
        project = operation.project
    announce(call.daemon, "operation-cancelled", f"/1.0/operations/{id}", project)
    return sync()


@routes.on("GET", "/{id}/wait", entitlement="can_view", owner=owner, untrusted=True)
async def wait_for_operation(call: Call[None]) -> web.StreamResponse:
    """Until it is final, `?timeout=` seconds at most; answers what it is by then, final or not."""
    refuse_strangers(call)
    timeout = seconds(call.query("timeout", "-1"))
    if (token := replicated(call)) is not None:
        return sync(token)
    if await queued(call) is not None:
        return await wait_in_queue(call, timeout)
    operation = await visible(call)
    try:
        async with while_true(lambda: is_there(call.request)):
            await operation.wait(timeout)
    except TimeoutError:
        raise ConnectionResetError("the client hung up") from None
    return sync(operation.shown())


async def wait_in_queue(call: Call[None], timeout: float | None) -> web.StreamResponse:
    """Until it is over, or some member carries it out: then that one is asked."""
    daemon, id = call.daemon, call.path("id")
    assert daemon.operations.queued is not None
    try:
        async with while_true(lambda: is_there(call.request)):
            await daemon.operations.queued.over(id, timeout)
    except TimeoutError:
        raise ConnectionResetError("the client hung up") from None
    if (view := await daemon.operations.queued.find(daemon.state, id)) is not None:
        return sync(view)
    home = daemon.operations.owner(daemon.state, id)
    if home is not None and home != daemon.member_id:
        return await call.forward(home)
    operation = await visible(call)
    await operation.wait(timeout)
    return sync(operation.shown())


@routes.on("GET", "/{id}/websocket", entitlement="can_view", owner=owner, untrusted=True)
async def connect_websocket(call: Call[None]) -> web.StreamResponse:
    if not call.query("secret"):
        raise Invalid("missing secret", key="secret")
    operation = await call.daemon.operations.get(call.path("id"))
    if operation.sockets is None:
        raise Invalid("Only websocket operations can be connected")
    if operation.is_final:
        raise Invalid("Only running operations can be connected")
    return await operation.sockets.connect(call.request, call.query("secret"))


def refuse_strangers(call: AnyCall) -> None:
    """Without a secret they do not even learn whether there is such an operation. Raises Forbidden."""
    if not call.identity.trusted and not call.query("secret"):
        raise Forbidden("not authorized")


async def visible(call: AnyCall) -> Operation:
    """The operation, if the caller may know of it: trusted and within its projects, or by one of its
    secrets.
    """
    operation = await call.daemon.operations.get(call.path("id"))
    secret = call.query("secret")
    if secret and not call.identity.admin:
        own = str(operation.metadata.get("secret", ""))
        if not (own and hmac.compare_digest(own.encode(), secret.encode())) and (
            operation.sockets is None or not operation.sockets.knows(secret)
        ):
            raise Forbidden("not authorized")
    elif not call.identity.trusted:
        raise Forbidden("not authorized")
    elif operation.project and not call.identity.sees(operation.project):
        raise NotFound("Operation not found", operation=operation.id)
    return operation


def replicated(call: AnyCall) -> object | None:
    """A token, for admins."""
    rows = call.daemon.operations.replicated
    if rows is None or not call.identity.admin:
        return None
    return rows.find(call.state, call.path("id"))


async def queued(call: AnyCall) -> OperationView | None:
    """What waits for GPUs, for who sees its project. Raises NotFound for others."""
    rows, id = call.daemon.operations.queued, call.path("id")
    view = await rows.find(call.state, id) if rows is not None else None
    if rows is None or view is None:
        return None
    if not call.identity.trusted:
        raise Forbidden("not authorized")
    if not call.identity.sees(rows.project(call.state, id) or ""):
        raise NotFound("Operation not found", operation=id)
    return view


async def everywhere(call: AnyCall) -> Rows:
    """Of this member, of all others that are alive, and the tokens."""
    others = sorted(m for m in call.store.links if call.daemon.beat.online(m))
    answers = await asyncio.gather(*(of_peer(call, member) for member in others))
    rows = own(call)
    if call.identity.admin and call.daemon.operations.replicated is not None:
        rows += [plain(token) for token in call.daemon.operations.replicated.all(call.state)]
    if call.daemon.operations.queued is not None:
        waiting = await call.daemon.operations.queued.all(call.state)
        rows += [{**plain(view), "project": project} for project, view in waiting]
    for answer in answers:
        rows += answer
    return rows


async def of_peer(call: AnyCall, member: str) -> Rows:
    """None of a member that does not answer: what it ran may be over anyway."""
    try:
        answer: Rows = await call.daemon.forwarder.ask(
            member, "GET", "/internal/operations", timeout=PEER_ANSWERS_WITHIN
        )
    except Error:
        return []
    return answer


def own(call: AnyCall) -> Rows:
    return [
        {**plain(operation.shown()), "project": operation.project}
        for operation in call.daemon.operations.all()
    ]


def plain(view: object) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(view)
    return row


def listed(call: AnyCall, row: dict[str, Any]) -> bool:
    """Operations of no project are shown in all of them."""
    project = row.get("project", "")
    if not project:
        return True
    return call.identity.sees(project) and (call.all_projects or project == call.project)


def shorn(row: dict[str, Any]) -> dict[str, Any]:
    """Without what LXD's does not have."""
    return {name: value for name, value in row.items() if name != "project"}


def seconds(text: str) -> float | None:
    """Raises Invalid. LXD's clients send -1 for as long as it takes."""
    try:
        value = float(text)
    except ValueError:
        raise Invalid(f"Not a number of seconds: {text!r}") from None
    return None if value < 0 else value
