"""/1.0/networks/<name>/forwards: addresses whose traffic one member sends on to instances of the network.

Each is on the member it was made on (`?target=`, else the one that was asked), whose host has the address or
is sent what comes for it.
"""

from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Error, Invalid, NotFound
from cluster.membership.model import name_of
from lxdpy.resources.networks import forwarding
from lxdpy.resources.networks.commands import (
    CreateForward,
    DeleteForward,
    UpdateForward,
    forward_etag,
    forward_of,
)
from lxdpy.resources.networks.model import NETWORKS, Forward, ForwardPort, Network
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import only_set, url
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes, target_member

routes = Routes("/1.0/networks/{network}/forwards")


class ForwardPut(msgspec.Struct):
    description: str | None = None
    config: dict[str, str] | None = None
    ports: tuple[ForwardPort, ...] | None = None


class ForwardsPost(ForwardPut):
    listen_address: str = ""


@routes.on("GET", entitlement="can_view")
async def list_forwards(call: Call[None]) -> web.Response:
    """Of all members."""
    row = network(call)
    found = sorted((listen, m) for m, part in row.members.items() for listen in part.forwards)
    if not call.recursive:
        return sync([path(row, listen) for listen in sorted({listen for listen, _ in found})])
    return sync([wire(call, m, listen, row.members[m].forwards[listen]) for listen, m in found])


@routes.on("POST", body=ForwardsPost, entitlement="can_edit", owner=target_member)
async def create_forward(call: Call[ForwardsPost]) -> web.Response:
    row, body, me = network(call), call.body, call.daemon.member_id
    new = Forward(body.description or "", only_set(body.config), body.ports or ())
    listen = forwarding.address_of("listen address", body.listen_address)
    forwarding.check(listen, new, row.config)
    await call.store.propose(CreateForward(row.key, me, listen, new))
    try:
        await call.daemon.bridges.ensure(row.key)
    except Error:
        await call.store.propose(DeleteForward(row.key, me, listen))
        raise
    return sync(location=path(row, listen))


def holder(call: AnyCall) -> str:
    """The member that has the forward of the path. Raises NotFound, or Invalid if more than one has it."""
    listen, chosen = call.path("listen"), target_member(call)
    having = [m for m, part in sorted(network(call).members.items()) if listen in part.forwards]
    found = [m for m in having if chosen in (None, m)]
    if not found:
        raise NotFound("Network forward not found", listen_address=listen)
    if len(found) > 1:
        raise Invalid(
            "More than one cluster member has a network forward for that listen address. "
            "Please target a specific member",
            key="target",
        )
    return found[0]


@routes.on("GET", "/{listen}", entitlement="can_view")
async def show_forward(call: Call[None]) -> web.Response:
    member, listen = holder(call), call.path("listen")
    row = forward_of(call.state, network(call).key, member, listen)
    return sync(wire(call, member, listen, row), etag=forward_etag(listen, row))


@routes.on("PUT", "/{listen}", body=ForwardPut, entitlement="can_edit", owner=holder)
async def update_forward(call: Call[ForwardPut]) -> web.Response:
    body = call.body
    return await update(call, Forward(body.description or "", only_set(body.config), body.ports or ()))


@routes.on("PATCH", "/{listen}", body=ForwardPut, entitlement="can_edit", owner=holder)
async def patch_forward(call: Call[ForwardPut]) -> web.Response:
    body, row = call.body, forward_of(call.state, network(call).key, holder(call), call.path("listen"))
    description = row.description if body.description is None else body.description
    config, ports = row.config | (body.config or {}), row.ports if body.ports is None else body.ports
    return await update(call, Forward(description, only_set(config), ports))


async def update(call: AnyCall, new: Forward) -> web.Response:
    row, member, listen = network(call), holder(call), call.path("listen")
    forwarding.check(listen, new, row.config)
    await call.store.propose(UpdateForward(row.key, member, listen, new, call.etag))
    await call.daemon.bridges.ensure(row.key)
    return sync()


@routes.on("DELETE", "/{listen}", entitlement="can_edit", owner=holder)
async def delete_forward(call: Call[None]) -> web.Response:
    row, member = network(call), holder(call)
    await call.store.propose(DeleteForward(row.key, member, call.path("listen")))
    await call.daemon.bridges.ensure(row.key)
    return sync()


def network(call: AnyCall) -> Network:
    """Raises NotFound."""
    return call.state.get(NETWORKS, f"{home(call.state, call.project, 'networks')}/{call.path('network')}")


def path(row: Network, listen: str) -> str:
    return url("networks", row.name, "forwards", listen, project=row.project)


def wire(call: AnyCall, member: str, listen: str, row: Forward) -> dict[str, Any]:
    return {
        "description": row.description,
        "config": row.config,
        "ports": [msgspec.structs.asdict(port) for port in row.ports],
        "listen_address": listen,
        "location": name_of(call.state, member),
    }
