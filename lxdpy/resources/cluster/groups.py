"""/1.0/cluster/groups: names for sets of members, to place instances in."""

from typing import Any

from aiohttp import web

from cluster.errors import AlreadyExists, Invalid
from cluster.membership.groups import CreateGroup, DeleteGroup, RenameGroup, UpdateGroup
from cluster.membership.model import GROUPS, Group, is_clustered, member_named, members
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import State
from lxdpy.resources.cluster.model import GroupPut, GroupsPost
from lxdpy.resources.wire import check_name, url
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/cluster/groups")


@routes.on("GET", entitlement="can_view")
async def list_groups(call: Call[None]) -> web.Response:
    clustered(call)
    rows = [row for _, row in sorted(call.state.rows(GROUPS).items())]
    return sync(
        [wire(call.state, row) if call.recursive else url("cluster/groups", row.name) for row in rows]
    )


@routes.on("POST", body=GroupsPost, entitlement="admin")
async def create_group(call: Call[GroupsPost]) -> web.Response:
    clustered(call)
    name = call.body.name
    check_group_name(name)
    if call.state.find(GROUPS, name) is not None:
        raise AlreadyExists("This cluster group already exists", group=name)
    ids = ids_of(call.state, call.body.members)
    await call.store.propose(CreateGroup(Group(name, call.body.description), ids))
    return sync(location=url("cluster/groups", name))


@routes.on("GET", "/{name}", entitlement="can_view")
async def show_group(call: Call[None]) -> web.Response:
    clustered(call)
    row = call.state.get(GROUPS, call.path("name"))
    return sync(wire(call.state, row), etag=group_etag(call.state, row))


@routes.on("PUT", "/{name}", body=GroupPut, entitlement="admin")
async def update_group(call: Call[GroupPut]) -> web.Response:
    clustered(call)
    return await update(call, call.body.description or "", ids_of(call.state, call.body.members))


@routes.on("PATCH", "/{name}", body=GroupPut, entitlement="admin")
async def patch_group(call: Call[GroupPut]) -> web.Response:
    clustered(call)
    row = call.state.get(GROUPS, call.path("name"))
    given = call.body.members
    ids = ids_of(call.state, given if given is not None else names_in(call.state, row.name))
    description = row.description if call.body.description is None else call.body.description
    return await update(call, description, ids)


async def update(call: AnyCall, description: str, ids: tuple[str, ...]) -> web.Response:
    row = call.state.get(GROUPS, call.path("name"))
    check_etag(call.etag, group_etag(call.state, row))
    await call.store.propose(UpdateGroup(row.name, description, ids))
    return sync()


@routes.on("POST", "/{name}", body=GroupsPost, entitlement="admin")
async def rename_group(call: Call[GroupsPost]) -> web.Response:
    clustered(call)
    row = call.state.get(GROUPS, call.path("name"))
    check_group_name(call.body.name)
    if call.state.find(GROUPS, call.body.name) is not None:
        raise AlreadyExists(f'Name "{call.body.name}" already in use', group=call.body.name)
    await call.store.propose(RenameGroup(row.name, call.body.name))
    return sync(location=url("cluster/groups", call.body.name))


@routes.on("DELETE", "/{name}", entitlement="admin")
async def delete_group(call: Call[None]) -> web.Response:
    clustered(call)
    await call.store.propose(DeleteGroup(call.path("name")))
    return sync()


def check_group_name(name: str) -> None:
    check_name("Cluster group", name)
    if name.startswith("@"):  # so that ?target=@name is one thing
        raise Invalid(f'Invalid cluster group name "{name}"', key="name", value=name)


def clustered(call: AnyCall) -> None:
    """Raises Invalid while this server is alone."""
    if not is_clustered(call.state):
        raise Invalid("This server is not clustered")


def ids_of(state: State, names: list[str] | None) -> tuple[str, ...]:
    return tuple(member_named(state, name).id for name in names or [])


def names_in(state: State, group: str) -> list[str]:
    return [row.name for row in members(state) if group in row.groups]


def group_etag(state: State, row: Group) -> str:
    return etag_of(row.description, names_in(state, row.name))


def wire(state: State, row: Group) -> dict[str, Any]:
    return {"name": row.name, "description": row.description, "members": names_in(state, row.name)}
