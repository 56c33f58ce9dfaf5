"""/1.0/networks: managed networks, and what other interfaces this host has."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Conflict, Error, Invalid, NotFound
from cluster.membership.model import is_clustered, member_named, members
from cluster.state.etag import etag_of
from lxdpy.host.network.report import interfaces, used_subnets
from lxdpy.host.network.report import state as interface_state
from lxdpy.resources.networks.actions import host_network
from lxdpy.resources.networks.commands import (
    CreateNetwork,
    DefineNetwork,
    DeleteNetwork,
    RenameNetwork,
    UpdateNetwork,
    check_name,
    network_etag,
    users,
)
from lxdpy.resources.networks.model import NETWORKS, OWN_KEYS, Network, NetworkMember, errored
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import only_set, project_of, url
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes, target_member

routes = Routes("/1.0/networks")
internal = Routes("/internal/1.0/networks")

NO_HWADDR = "00:00:00:00:00:00"  # what the kernel shows of an interface without one


class NetworksPost(msgspec.Struct):
    name: str = ""
    type: str = ""
    description: str = ""
    config: dict[str, str] | None = None


class NetworkPut(msgspec.Struct):
    description: str | None = None
    config: dict[str, str] | None = None


class NetworkPost(msgspec.Struct):
    name: str = ""


@routes.on("GET", entitlement="can_view")
async def list_networks(call: Call[None]) -> web.Response:
    own = home(call.state, call.project, "networks")
    rows = {row.name: row for row in call.state.rows(NETWORKS).values() if row.project == own}
    others = await asyncio.to_thread(interfaces) if own == "default" else ()
    unmanaged = {i.name: i.type for i in others if i.name not in rows}
    names = sorted({*rows, *unmanaged})
    if not call.recursive:
        return sync([url("networks", name, project=own) for name in names])
    return sync([wire(call, rows[n]) if n in rows else wire_unmanaged(n, unmanaged[n]) for n in names])


@routes.on("POST", body=NetworksPost, entitlement="can_create_networks")
async def create_network(call: Call[NetworksPost]) -> web.Response:
    body, type_ = call.body, call.body.type or "bridge"
    project = home(call.state, call.project, "networks")
    driver = call.daemon.networks.driver_for(type_)
    config = only_set(body.config)
    if not body.name:
        raise Invalid("No name provided", key="name")
    driver.check(body.name, config)
    location = url("networks", body.name, project=project)
    if call.target:
        if foreign := sorted(config.keys() - set(OWN_KEYS)):
            raise Invalid(f'Config key "{foreign[0]}" may not be used as member-specific key', key=foreign[0])
        member = member_named(call.state, call.target)
        await call.store.propose(DefineNetwork(project, body.name, type_, member.id, config))
        return sync(location=location)
    row = call.state.find(NETWORKS, f"{project}/{body.name}")
    if row is not None and row.status == "Created" and not errored(row):
        raise Invalid("The network already exists")
    if row is None:
        await check_free(call, body.name)
    own = {key: config.pop(key) for key in OWN_KEYS if key in config}
    alone = len(members(call.state)) == 1
    if own and is_clustered(call.state):
        raise Invalid(f'Config key "{sorted(own)[0]}" is cluster member specific', key=sorted(own)[0])
    taken = await asyncio.to_thread(used_subnets)
    config = driver.complete(config, taken | subnets_of(call))
    await driver.try_out(config)
    parts = {call.daemon.member_id: NetworkMember(own)} if alone and row is None else {}
    new = Network(project, body.name, type_, body.description, config, "Pending", parts)
    await make(call, new, alone=alone)
    return sync(location=location)


async def check_free(call: AnyCall, name: str) -> None:
    """Raises Conflict for the name of an interface of this host, or of another project's network.

    A bridge of ours may still be there: of a network that was deleted just now.
    """
    ours = call.daemon.networks.driver_for("bridge").made()
    check_name(call.state, name)
    if name in {found.name for found in await asyncio.to_thread(interfaces)}.difference(ours):
        raise Conflict(f'Network interface "{name}" already exists', name=name)


async def make(call: AnyCall, new: Network, *, alone: bool) -> None:
    """Have all members make their part. Raises the first one's failure."""
    await call.store.propose(CreateNetwork(new))
    try:
        await call.daemon.bridges.wait_for(new.key)
    except Error:
        if alone:  # with others, those that succeeded keep their part, and the rest may be tried again
            await call.store.propose(DeleteNetwork(new.key))
        raise


def subnets_of(call: AnyCall) -> set[str]:
    """Subnets of the managed networks, also those that other hosts have."""
    rows = call.state.rows(NETWORKS).values()
    found = {row.config.get(f"{ip}.address", "") for row in rows for ip in ("ipv4", "ipv6")}
    return {address for address in found if "/" in address}


@routes.on("GET", "/{name}", entitlement="can_view")
async def show_network(call: Call[None]) -> web.Response:
    row = call.state.find(NETWORKS, key(call))
    if row is not None:
        return sync(wire(call, row), etag=network_etag(row))
    for other in await asyncio.to_thread(interfaces):
        if other.name == call.path("name"):
            return sync(wire_unmanaged(other.name, other.type), etag=etag_of(other.name, other.type))
    raise NotFound("Network not found")


@routes.on("PUT", "/{name}", body=NetworkPut, entitlement="can_edit")
async def update_network(call: Call[NetworkPut]) -> web.Response:
    row = call.state.get(NETWORKS, key(call))
    return await update(call, row, call.body.description or "", call.body.config or {})


@routes.on("PATCH", "/{name}", body=NetworkPut, entitlement="can_edit")
async def patch_network(call: Call[NetworkPut]) -> web.Response:
    row = call.state.get(NETWORKS, key(call))
    description = row.description if call.body.description is None else call.body.description
    config = {**row.config, **own_config(call, row), **(call.body.config or {})}
    return await update(call, row, description, config)


async def update(call: AnyCall, row: Network, description: str, config: dict[str, str]) -> web.Response:
    config = {name: value for name, value in config.items() if not name.startswith("volatile.")}
    driver = call.daemon.networks.driver_for(row.type)
    driver.check(row.name, config)
    config = only_set(config)
    await driver.try_out(config)
    own = {name: config.pop(name) for name in OWN_KEYS if name in config}
    if own and whose(call) is None:
        raise Invalid(f'Config key "{sorted(own)[0]}" is cluster member specific', key=sorted(own)[0])
    kept = {k: v for k, v in row.config.items() if k.startswith("volatile.")}
    chosen = driver.complete(config, subnets_of(call))
    for ip in ("ipv4", "ipv6"):
        if config.get(f"{ip}.address") == "auto":  # what is left out is chosen for new networks only
            config |= {key: chosen[key] for key in (f"{ip}.address", f"{ip}.nat")}
    new = {**kept, **config}
    await call.store.propose(UpdateNetwork(row.key, description, new, call.etag, whose(call) or "", own))
    return sync()


@routes.on("POST", "/{name}", body=NetworkPost, entitlement="can_edit")
async def rename_network(call: Call[NetworkPost]) -> web.Response:
    row = call.state.get(NETWORKS, key(call))
    if not call.body.name:
        raise Invalid("New network name not provided", key="name")
    call.daemon.networks.driver_for(row.type).check(call.body.name, row.config)
    await check_free(call, call.body.name)
    await call.store.propose(RenameNetwork(row.key, call.body.name))
    return sync(location=url("networks", call.body.name, project=row.project))


@routes.on("DELETE", "/{name}", entitlement="can_delete")
async def delete_network(call: Call[None]) -> web.Response:
    await call.store.propose(DeleteNetwork(key(call)))
    return sync()


@routes.on("GET", "/{name}/state", entitlement="can_view", owner=target_member)
async def show_state(call: Call[None]) -> web.Response:
    row = call.state.find(NETWORKS, key(call))
    if row is None:
        seen = await asyncio.to_thread(interface_state, call.path("name"))
        return sync(msgspec.structs.replace(seen, hwaddr=seen.hwaddr if seen.hwaddr != NO_HWADDR else ""))
    driver = call.daemon.networks.driver_for(row.type)
    return sync(await driver.state(host_network(row, call.daemon.member_id)))


@routes.on("GET", "/{name}/leases", entitlement="can_view")
async def list_leases(call: Call[None]) -> web.Response:
    """Of all members that answer: each has a bridge and a DHCP server of its own."""
    row = call.state.get(NETWORKS, key(call))
    found = await own_leases(call, row)
    for lease in found:  # the gateway is the same on every member
        lease["location"] = "" if lease["type"] == "gateway" else lease["location"]
    path = f"/internal/1.0/networks/{row.name}/leases?project={row.project}"
    others = [
        m for m in members(call.state) if m.id != call.daemon.member_id and call.daemon.beat.online(m.id)
    ]

    async def of(member: str) -> list[dict[str, Any]]:
        try:
            return list(await call.daemon.forwarder.ask(member, "GET", path, timeout=2.0))
        except Error:
            return []  # its leases are missing from the list, as LXD has it

    for part in await asyncio.gather(*(of(m.id) for m in others)):
        found += [lease for lease in part if lease["type"] != "gateway"]
    return sync(found)


@internal.on("GET", "/{name}/leases", internal=True, entitlement="can_view")
async def list_own_leases(call: Call[None]) -> web.Response:
    return sync(await own_leases(call, call.state.get(NETWORKS, key(call))))


async def own_leases(call: AnyCall, row: Network) -> list[dict[str, Any]]:
    driver = call.daemon.networks.driver_for(row.type)
    leases = await driver.leases(host_network(row, call.daemon.member_id))
    location = call.daemon.name if call.daemon.clustered else ""
    return [{**msgspec.structs.asdict(lease), "location": location} for lease in leases]


def key(call: AnyCall) -> str:
    return f"{home(call.state, call.project, 'networks')}/{call.path('name')}"


def whose(call: AnyCall) -> str | None:
    """The member whose own keys are meant: the one that is asked for, or this one while not clustered."""
    return target_member(call) if is_clustered(call.state) else call.daemon.member_id


def own_config(call: AnyCall, row: Network) -> dict[str, str]:
    return row.members.get(whose(call) or "", NetworkMember()).config


def wire(call: AnyCall, row: Network) -> dict[str, Any]:
    names = {m.id: m.name for m in members(call.state)}
    return {
        "config": {**row.config, **own_config(call, row)},
        "description": row.description,
        "name": row.name,
        "type": row.type,
        "used_by": [u for u in users(call.state, row) if call.identity.sees(project_of(u))] or None,
        "managed": True,
        "status": "Errored" if errored(row) else row.status,
        "locations": sorted(names.get(m, m) for m in row.members),
    }


def wire_unmanaged(name: str, type_: str) -> dict[str, Any]:
    return {
        "config": {},
        "description": "",
        "name": name,
        "type": type_,
        "used_by": [] if type_ == "loopback" else None,
        "managed": False,
        "status": "",
        "locations": None,
    }
