"""/1.0/storage-pools."""

from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import AlreadyExists, Error, Invalid
from cluster.membership.model import is_clustered, member_named, members
from lxdpy.host.storage.registry import driver_type, pool_keys
from lxdpy.resources.storage_pools.actions import shown_config, with_status
from lxdpy.resources.storage_pools.commands import (
    CreatePool,
    DefinePool,
    DeletePool,
    UpdatePool,
    pool_etag,
    users,
)
from lxdpy.resources.storage_pools.model import OWN_KEYS, POOLS, Pool, PoolMember, errored
from lxdpy.resources.wire import check_name, project_of, url
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes, target_member

routes = Routes("/1.0/storage-pools")


class PoolsPost(msgspec.Struct):
    name: str = ""
    driver: str = ""
    description: str = ""
    config: dict[str, str] | None = None


class PoolPut(msgspec.Struct):
    description: str | None = None
    config: dict[str, str] | None = None


@routes.on("GET", entitlement="can_view")
async def list_pools(call: Call[None]) -> web.Response:
    rows = [row for _, row in sorted(call.state.rows(POOLS).items())]
    return sync([wire(call, row) if call.recursive else url("storage-pools", row.name) for row in rows])


@routes.on("POST", body=PoolsPost, entitlement="admin")
async def create_pool(call: Call[PoolsPost]) -> web.Response:
    body = call.body
    check_name("Storage pool", body.name, {"white space": " \t\n"})
    if not body.driver:
        raise Invalid("No driver provided", key="driver")
    driver_type(body.driver)
    config = pool_keys(body.driver).checked(body.config)
    if call.target:
        return await define(call, config)
    own = {key: config.pop(key) for key in OWN_KEYS if key in config}
    row = call.state.find(POOLS, body.name)
    if row is not None and row.status == "Created" and not errored(row):
        raise AlreadyExists("The storage pool already exists")
    if own and is_clustered(call.state):
        name = sorted(own)[0]
        raise Invalid(f'Config key "{name}" is cluster member specific', key=name)
    alone = len(members(call.state)) == 1
    parts = {call.daemon.member_id: PoolMember(own)} if alone and row is None else {}
    pool = Pool(body.name, body.driver, body.description, config, "Pending", parts)
    await call.store.propose(CreatePool(pool))
    try:
        await call.daemon.pools.wait_for(body.name)
    except Error:
        if alone:  # with others, those that succeeded keep their part, and the rest may be tried again
            await call.store.propose(DeletePool(body.name))
        raise
    return sync(location=url("storage-pools", body.name))


async def define(call: Call[PoolsPost], config: dict[str, str]) -> web.Response:
    """What is particular to the member named by ?target=; nothing else may be given yet."""
    member = member_named(call.state, call.target)
    if foreign := sorted(config.keys() - set(OWN_KEYS)):
        raise Invalid(f'Config key "{foreign[0]}" may not be used as member-specific key', key=foreign[0])
    await call.store.propose(DefinePool(call.body.name, call.body.driver, member.id, config))
    return sync(location=url("storage-pools", call.body.name))


@routes.on("GET", "/{pool}", entitlement="can_view")
async def show_pool(call: Call[None]) -> web.Response:
    row = call.state.get(POOLS, call.path("pool"))
    return sync(wire(call, row), etag=pool_etag(row))


@routes.on("PUT", "/{pool}", body=PoolPut, entitlement="admin")
async def update_pool(call: Call[PoolPut]) -> web.Response:
    row = call.state.get(POOLS, call.path("pool"))
    return await update(call, row, call.body.description or "", call.body.config or {})


@routes.on("PATCH", "/{pool}", body=PoolPut, entitlement="admin")
async def patch_pool(call: Call[PoolPut]) -> web.Response:
    row = call.state.get(POOLS, call.path("pool"))
    description = row.description if call.body.description is None else call.body.description
    return await update(call, row, description, {**row.config, **(call.body.config or {})})


async def update(call: AnyCall, row: Pool, description: str, config: dict[str, str]) -> web.Response:
    config = pool_keys(row.driver).checked(config)
    member = target_member(call) or call.daemon.member_id
    own = row.members.get(member, PoolMember()).config
    for key in OWN_KEYS:
        if config.pop(key, own.get(key, "")) != own.get(key, ""):
            if is_clustered(call.state) and not call.target:
                raise Invalid(f'Config key "{key}" is cluster member specific', key=key)
            raise Invalid(f"Pool {key} cannot be changed when not in pending state", key=key)
    await call.store.propose(UpdatePool(row.name, description, config, call.etag))
    return sync()


@routes.on("DELETE", "/{pool}", entitlement="admin")
async def delete_pool(call: Call[None]) -> web.Response:
    """LXD answers when it is gone; so do we, unless a member that is there takes long."""
    await call.store.propose(DeletePool(call.path("pool")))
    await call.daemon.pools.wait_gone(call.path("pool"))
    return sync()


@routes.on("GET", "/{pool}/resources", entitlement="can_view", owner=target_member)
async def show_resources(call: Call[None]) -> web.Response:
    space = await call.daemon.pools.driver(call.path("pool")).space()
    return sync(
        {
            "space": {"used": space.used, "total": space.total},
            "inodes": {"used": space.inodes_used, "total": space.inodes_total},
        }
    )


def wire(call: AnyCall, row: Pool) -> dict[str, Any]:
    """With the keys of the member that is asked for, or of this one while not clustered.

    Who is confined to projects sees no config, and of the users those in its projects.
    """
    if call.target:
        member = target_member(call) or ""
    else:
        member = "" if is_clustered(call.state) else call.daemon.member_id
    names = {m.id: m.name for m in members(call.state)}
    locations = sorted(names.get(m, m) for m in row.members)
    return {
        "config": shown_config(row, member) if call.identity.admin else None,
        "description": row.description,
        "name": row.name,
        "driver": row.driver,
        "used_by": [u for u in users(call.state, row.name) if call.identity.sees(project_of(u))] or None,
        "status": with_status(row).status,
        "locations": locations,
    }
