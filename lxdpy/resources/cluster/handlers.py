"""/1.0/cluster: the cluster, its members, join tokens."""

import time

from aiohttp import web

from cluster.errors import Conflict, Invalid
from cluster.ids import operation_id
from cluster.membership.commands import (
    CreateToken,
    UpdateMember,
    check_name,
)
from cluster.membership.model import (
    GIVEN_ROLES,
    Member,
    Token,
    is_clustered,
    member_named,
    members,
)
from cluster.membership.tokens import hash_of, new_secret
from cluster.state.etag import check_etag, etag_of
from lxdpy.config.member import MEMBER
from lxdpy.config.times import expiry
from lxdpy.resources.cluster import actions, evacuate, leaving
from lxdpy.resources.cluster.commands import NameMember
from lxdpy.resources.cluster.groups import clustered
from lxdpy.resources.cluster.model import (
    ClusterPut,
    Json,
    MemberPost,
    MemberPut,
    MembersPost,
    MemberStatePost,
)
from lxdpy.resources.cluster.roles import roles_of
from lxdpy.resources.cluster.shown import member_etag, member_keys, wire
from lxdpy.resources.cluster.tokens import Tokens, addresses, fingerprint
from lxdpy.resources.server.model import setting
from lxdpy.resources.wire import url
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import AnyCall, Call, Routes, is_true

routes = Routes("/1.0/cluster")


@routes.on("GET", entitlement="can_view")
async def show_cluster(call: Call[None]) -> web.Response:
    shown = cluster_shown(call)
    return sync(shown, etag=etag_of(shown))


def cluster_shown(call: AnyCall) -> Json:
    clustered = is_clustered(call.state)
    name = call.daemon.name if clustered else ""
    return {"server_name": name, "enabled": clustered, "member_config": member_keys(call.state)}


@routes.on("PUT", body=ClusterPut, entitlement="admin")
async def update_cluster(call: Call[ClusterPut]) -> web.Response:
    body = call.body
    check_etag(call.etag, etag_of(cluster_shown(call)))
    resources = {"cluster": ["/1.0/cluster"]}
    if not body.enabled:
        raise Invalid("A member leaves with DELETE /1.0/cluster/members/<name>", key="enabled")
    if is_clustered(call.state):
        raise Invalid("This server is already clustered")
    if not body.server_name:
        raise Invalid("ServerName is required when enabling clustering", key="server_name")
    check_name(body.server_name)
    daemon = call.daemon
    if body.cluster_address or body.cluster_token:
        ticket = await actions.ticket_of(body)
        await actions.check_joinable(daemon, body)
        joining = daemon.operations.start(
            "Joining cluster", resources, lambda _: actions.join(daemon, body, ticket)
        )
        return asynchronous(joining)
    address = await actions.reachable_address(daemon, body.server_address)
    enabling = daemon.operations.start(
        "Creating bootstrap node", resources, lambda _: actions.enable(daemon, body.server_name, address)
    )
    return asynchronous(enabling)


@routes.on("GET", "/members", entitlement="can_view")
async def list_members(call: Call[None]) -> web.Response:
    clustered(call)
    rows = members(call.state)
    if not call.recursive:
        return sync([url("cluster/members", row.name) for row in rows])
    return sync([wire(call.daemon, row) for row in rows])


@routes.on("POST", "/members", body=MembersPost, entitlement="admin")
async def create_token(call: Call[MembersPost]) -> web.Response:
    clustered(call)
    check_name(call.body.server_name)
    daemon, now = call.daemon, time.time()
    secret = new_secret()
    token = Token(
        id=operation_id(daemon.member_id),
        kind="member",
        name=call.body.server_name,
        secret_hash=hash_of(secret),
        created_at=now,
        expires_at=expiry(setting(call.state, "cluster.join_token_expiry", "3H")).after(now),
        fingerprint=fingerprint(call.state, daemon.keys.fingerprint()),
        addresses=addresses(call.state),
    )
    await call.store.propose(CreateToken(token))
    daemon.membership.secrets[token.id] = secret
    return asynchronous(Tokens(daemon).view(token))


@routes.on("GET", "/members/{name}", entitlement="can_view")
async def show_member(call: Call[None]) -> web.Response:
    clustered(call)
    row = member_named(call.state, call.path("name"))
    return sync(wire(call.daemon, row), etag=member_etag(call.daemon, row))


@routes.on("PUT", "/members/{name}", body=MemberPut, entitlement="admin")
async def update_member(call: Call[MemberPut]) -> web.Response:
    clustered(call)
    return await put_member(call, member_named(call.state, call.path("name")), call.body)


@routes.on("PATCH", "/members/{name}", body=MemberPut, entitlement="admin")
async def patch_member(call: Call[MemberPut]) -> web.Response:
    clustered(call)
    row, body = member_named(call.state, call.path("name")), call.body
    body.failure_domain = row.failure_domain if body.failure_domain is None else body.failure_domain
    body.description = row.description if body.description is None else body.description
    body.config = {**row.config, **(body.config or {})}
    body.groups = body.groups if body.groups is not None else list(row.groups)
    body.roles = body.roles if body.roles is not None else roles_of(call.daemon, row)
    return await put_member(call, row, body)


async def put_member(call: AnyCall, row: Member, body: MemberPut) -> web.Response:
    check_etag(call.etag, member_etag(call.daemon, row))
    config, groups = MEMBER.checked(body.config), tuple(body.groups or ())
    roles = given_roles(body.roles or [], held=roles_of(call.daemon, row))
    if not groups:
        raise Invalid("Cluster members need to belong to at least one group", key="groups")
    domain = body.failure_domain or ""
    await call.store.propose(UpdateMember(row.id, body.description or "", domain, config, groups, roles))
    return sync()


def given_roles(wanted: list[str], held: list[str]) -> tuple[str, ...]:
    """Those that are an operator's to give. Raises Invalid for a change of the database's: the leader's."""
    for role in wanted:
        if role not in (*GIVEN_ROLES, "database", "database-leader", "database-standby"):
            raise Invalid(f'Update roles: Invalid cluster role "{role}"', key="roles")
    of_database = {role for role in held if role not in GIVEN_ROLES}
    if missing := sorted(of_database.difference(wanted)):
        raise Invalid(f'The "{missing[0]}" role cannot be dropped at this time', key="roles")
    if added := sorted(set(wanted).difference(of_database, GIVEN_ROLES)):
        raise Invalid(f'The "{added[0]}" role cannot be added at this time', key="roles")
    return tuple(role for role in GIVEN_ROLES if role in wanted)


@routes.on("POST", "/members/{name}", body=MemberPost, entitlement="admin")
async def rename_member(call: Call[MemberPost]) -> web.Response:
    clustered(call)
    row = member_named(call.state, call.path("name"))
    await call.store.propose(NameMember(row.id, call.body.server_name))
    return sync(location=url("cluster/members", call.body.server_name))


@routes.on("DELETE", "/members/{name}", entitlement="admin")
async def remove_member(call: Call[None]) -> web.Response:
    clustered(call)
    row = member_named(call.state, call.path("name"))
    forced = is_true(call.query("force"))
    if not call.daemon.beat.online(row.id) and not forced:
        raise Conflict(f"Member {row.name} is offline: it can only be removed by force", member=row.name)
    await leaving.remove(call.daemon, row, forced=forced)
    return sync()


def member_of(call: AnyCall) -> str | None:
    """The one that the path names. Raises NotFound."""
    clustered(call)
    return member_named(call.state, call.path("name")).id


@routes.on("POST", "/members/{name}/state", body=MemberStatePost, entitlement="admin", owner=member_of)
async def change_member_state(call: Call[MemberStatePost]) -> web.Response:
    daemon, action = call.daemon, call.body.action
    row = member_named(call.state, call.path("name"))
    evacuate.check(row.status, action, call.body.mode, away=bool(evacuate.away(daemon)))
    mode = call.body.mode
    description, act = {
        "evacuate": ("Evacuating cluster member", evacuate.evacuate),
        "restore": ("Restoring cluster member", evacuate.restore),
    }[action]
    return asynchronous(
        daemon.operations.start(description, {}, lambda operation: act(daemon, operation, mode))
    )
