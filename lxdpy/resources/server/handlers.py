"""/ and /1.0: what this server is and how it is configured."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Invalid
from lxdpy import VERSION
from lxdpy.config.server import SERVER
from lxdpy.host.hardware.environment import environment, storage_drivers
from lxdpy.host.storage.registry import DRIVERS
from lxdpy.resources.certificates.password import hashed
from lxdpy.resources.server.addresses import reachable
from lxdpy.resources.server.api_extensions import API_EXTENSIONS
from lxdpy.resources.server.commands import ConfigureServer, settings_etag, settings_of
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes, target_member

routes = Routes("")
PASSWORD = "core.trust_password"  # noqa: S105


class ServerPut(msgspec.Struct):
    """Values are texts, but for the echo of a secret that is set: `core.trust_password: true`."""

    config: dict[str, str | bool | None] | None = None


@routes.on("GET", "/", untrusted=True)
async def list_versions(call: Call[None]) -> web.Response:
    return sync(["/1.0"])


@routes.on("GET", "/1.0", entitlement="can_view", untrusted=True, owner=target_member)
async def show_server(call: Call[None]) -> web.Response:
    trusted = call.identity.trusted
    shown: dict[str, Any] = {
        "api_extensions": API_EXTENSIONS,
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted" if trusted else "untrusted",
        "public": False,
        "auth_methods": ["tls"],
    }
    if not trusted:
        return sync(shown)
    shown["config"] = config_shown(call)
    shown["environment"] = await environment_shown(call)
    return sync(shown, etag=settings_etag(call.state, call.daemon.member_id))


@routes.on("PUT", "/1.0", body=ServerPut, entitlement="admin", owner=target_member)
async def replace_config(call: Call[ServerPut]) -> web.Response:
    wanted = texts(call.body)
    current = settings_of(call.state, call.daemon.member_id)
    gone = {name: "" for name in current if name not in wanted}
    return await configure(call, {**gone, **wanted})


@routes.on("PATCH", "/1.0", body=ServerPut, entitlement="admin", owner=target_member)
async def patch_config(call: Call[ServerPut]) -> web.Response:
    return await configure(call, texts(call.body))


async def configure(call: AnyCall, wanted: dict[str, str]) -> web.Response:
    """Set what differs from now; "" unsets. The member's own addresses are tried before they are recorded."""
    current = settings_of(call.state, call.daemon.member_id)
    if wanted.get(PASSWORD) == "true":
        wanted.pop(PASSWORD)  # the client's echo of a password that is set
    changes = {name: value for name, value in wanted.items() if value != current.get(name, "")}
    SERVER.check(changes)
    if changes.get(PASSWORD):
        changes[PASSWORD] = await hashed(changes[PASSWORD])
    if call.daemon.clustered and "cluster.https_address" in changes:
        raise Invalid(
            "Changing cluster.https_address is currently not supported", key="cluster.https_address"
        )
    own = {name: value for name, value in changes.items() if SERVER.key(name).per_member}
    shared = {name: value for name, value in changes.items() if name not in own}
    if "core.https_address" in own:
        await call.daemon.membership.listen(own["core.https_address"])
    if "core.metrics_address" in own:
        await call.daemon.metrics.listen(own["core.metrics_address"])
    if changes or call.etag:  # who names a version is told of another, though nothing is to change
        await call.store.propose(ConfigureServer(shared, call.daemon.member_id, own, call.etag))
    return sync()


def texts(body: ServerPut) -> dict[str, str]:
    """The config as texts. Raises UnknownKey, and Invalid for booleans where nothing is hidden."""
    found = {}
    for name, value in (body.config or {}).items():
        if not SERVER.key(name).secret and isinstance(value, bool):
            raise Invalid(f"Bad request body: Expected `str`, got `bool` - at `$.config.{name}`", key=name)
        found[name] = "" if value is None else "true" if value is True else str(value or "")
    return found


def config_shown(call: AnyCall) -> dict[str, Any]:
    if not call.identity.admin:
        return {}
    found: dict[str, Any] = dict(settings_of(call.state, call.daemon.member_id))
    if PASSWORD in found:
        found[PASSWORD] = True
    return found


async def environment_shown(call: AnyCall) -> dict[str, Any]:
    daemon = call.daemon
    known = await storage_drivers()
    used = {row.driver for row in call.state.rows(POOLS).values()}
    return {
        **await environment(daemon.host),
        "addresses": await asyncio.to_thread(reachable, daemon.membership.listening()),
        "certificate": daemon.membership.certificate(),
        "certificate_fingerprint": daemon.membership.fingerprint(),
        "project": call.project,
        "server": "lxd",
        "server_clustered": daemon.clustered,
        "server_event_mode": "full-mesh",
        "server_name": daemon.name if daemon.clustered else daemon.membership.hostname(),
        "server_pid": daemon.membership.pid,
        "server_version": VERSION,
        "storage": " | ".join(driver["Name"] for driver in known if driver["Name"] in used),
        "storage_supported_drivers": [driver for driver in known if driver["Name"] in DRIVERS],
        "storage_version": " | ".join(driver["Version"] for driver in known if driver["Name"] in used),
    }
