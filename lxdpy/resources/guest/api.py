"""What a guest is answered. Bodies are plain, not in envelopes; errors are a line of text."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec
from aiohttp import web

from cluster.errors import Error, Forbidden, Invalid, NotFound, Unavailable, Unsupported
from cluster.membership.model import name_of
from cluster.state.command import CALLER
from lxdpy.resources.guest import limits, listeners
from lxdpy.resources.guest.listeners import SHOWN
from lxdpy.resources.images.export import multipart
from lxdpy.resources.images.find import by_fingerprint
from lxdpy.resources.images.form import suffix
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import note
from lxdpy.resources.instances.ready import READY, is_ready
from lxdpy.resources.instances.spec import is_on
from lxdpy.resources.profiles.model import Config, Devices
from lxdpy.resources.projects.model import home
from lxdpy.rest.errors import status_of
from lxdpy.rest.replies import file

if TYPE_CHECKING:
    from lxdpy.resources.guest.sockets import Guest

log = logging.getLogger(__name__)

REPORT_WITHIN = 10.0  # seconds; while it is stopped nobody may wait for it to say that it is ready
LOOK_AGAIN = 0.02  # seconds; a reboot takes 10 to 50 ms
Answered = Awaitable[web.StreamResponse]


class StatePatch(msgspec.Struct):
    state: str = ""


async def refuse(_: web.BaseRequest) -> web.StreamResponse:
    """Who is not root of the container."""
    reply = failed(401, "Access denied for non-root user")
    reply.force_close()
    return reply


async def answer(guest: "Guest", request: web.BaseRequest) -> web.StreamResponse:
    try:
        return await _route(guest, request)
    except Error as reason:
        return failed(status_of(reason), reason.message)
    except web.HTTPException as reason:  # aiohttp's own, of a bad websocket handshake
        return failed(reason.status, reason.text or reason.reason)
    except TimeoutError:
        raise ConnectionResetError("the guest takes nothing") from None


def failed(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=f"{message}\n", headers={"X-Content-Type-Options": "nosniff"})


def plain(text: str) -> web.Response:
    return web.Response(body=text.encode(), content_type="application/octet-stream")


def json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value) + b"\n", content_type="application/json")


async def _route(guest: "Guest", request: web.BaseRequest) -> web.StreamResponse:
    path = unquote(request.raw_path.partition("?")[0])
    row = guest.daemon.state.find(INSTANCES, guest.key)
    if row is None or row.uuid != guest.uuid:
        raise NotFound("not found")
    for pattern, methods in ROUTES.items():
        if found := re.fullmatch(pattern, path):
            if request.method not in methods:
                raise Unsupported("not implemented")
            return await methods[request.method](guest, row, request, *found.groups())
    raise NotFound("not found")


async def _root(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.Response:
    return json(["/1.0"])


async def _show(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.Response:
    return json({
        "api_version": "1.0",
        "location": name_of(guest.daemon.state, row.location),
        "instance_type": row.type,
        "state": "Ready" if is_ready(row) else "Started",
    })  # fmt: skip


async def _change(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.Response:
    """The guest says that it has come up, or has not any more."""
    try:
        body = msgspec.json.decode(await _body(request), type=StatePatch)
    except msgspec.MsgspecError as wrong:
        raise Invalid(f"Bad request body: {wrong}") from None
    if body.state not in ("Ready", "Started"):
        raise Invalid(f'Invalid state "{body.state[:80]}"')
    ready = body.state == "Ready"
    await guest.reports.take()
    try:
        async with asyncio.timeout(REPORT_WITHIN), guest.daemon.lock(f"instance {guest.key}"):
            CALLER.set(None)
            await _note(guest, ready=ready)
    except TimeoutError:
        raise Unavailable("The instance is being changed; try again") from None
    return json({})


async def _note(guest: "Guest", *, ready: bool) -> None:
    """It may have rebooted, and be ready, before `settle` has looked: so what it said before goes."""
    row = guest.daemon.state.get(INSTANCES, guest.key)
    if row.uuid != guest.uuid or row.status != "Running":
        return
    init, given = await _init(guest, row), await records.load(guest.daemon, row)
    if is_ready(row) and given is not None and given.init not in (0, init):
        await note(guest.daemon, row, {READY: ""})
        row = guest.daemon.state.get(INSTANCES, guest.key)
    guest.ready_by = init if ready else 0
    if is_ready(row) != ready:
        await note(guest.daemon, row, {READY: "true" if ready else ""})


async def _init(guest: "Guest", row: Instance) -> int:
    """Its first process. In the moment that a reboot takes it is not known yet."""
    while True:
        state = guest.daemon.runtime.state(row.volume)
        if state.init_pid or state.status == "Stopped":
            return state.init_pid
        await asyncio.sleep(LOOK_AGAIN)


async def _body(request: web.BaseRequest) -> bytes:
    found = b""
    async for part in request.content.iter_any():
        found += part
        if len(found) > limits.BODY:
            raise Invalid(f"Request body is longer than {limits.BODY} bytes")
    return found


def _expanded(guest: "Guest", row: Instance) -> tuple[Config, Devices]:
    return expanded(guest.daemon.state, row)


async def _list_config(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.Response:
    config, _ = _expanded(guest, row)
    return json([f"/1.0/config/{key}" for key in sorted(config) if key.startswith(SHOWN)])


async def _show_key(guest: "Guest", row: Instance, request: web.BaseRequest, key: str) -> web.Response:
    if not key.startswith(SHOWN):
        raise Forbidden("not authorized")
    config, _ = _expanded(guest, row)
    if key not in config:
        raise NotFound("not found")
    return plain(config[key])


async def _metadata(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.Response:
    """What cloud-init takes for the instance's identity, and what the user adds."""
    config, _ = _expanded(guest, row)
    lines = (
        "#cloud-config",
        f"instance-id: {config.get('volatile.cloud-init.instance-id', row.uuid)}",
        f"local-hostname: {row.name}",
        config.get("user.meta-data", ""),
    )
    return plain("\n".join(lines))


async def _devices(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.Response:
    """With the addresses that NICs got from us."""
    config, devices = _expanded(guest, row)
    return json({name: _with_address(name, options, config) for name, options in devices.items()})


def _with_address(name: str, options: dict[str, str], config: Config) -> dict[str, str]:
    known = config.get(f"volatile.{name}.hwaddr", "")
    if options.get("type") != "nic" or options.get("hwaddr") or not known:
        return options
    return options | {"hwaddr": known}


async def _events(guest: "Guest", row: Instance, request: web.BaseRequest) -> web.StreamResponse:
    return await listeners.stream(guest.listeners, request)


async def _export(
    guest: "Guest", row: Instance, request: web.BaseRequest, fingerprint: str
) -> web.StreamResponse:
    """Public images that this member has; those of others are nobody's business inside."""
    daemon = guest.daemon
    if not is_on(_expanded(guest, row)[0], "security.devlxd.images"):
        raise Forbidden("not authorized")
    image = by_fingerprint(daemon.state, home(daemon.state, row.project, "images"), fingerprint)
    if not image.public or not daemon.images.has(image.fingerprint):
        raise NotFound("not found")
    files = daemon.images.files(image.fingerprint)
    if files.rootfs is None:
        return file(files.metadata, filename=f"{image.fingerprint}{suffix(files.metadata)}")
    parts = [
        ("metadata", f"meta-{image.fingerprint}{suffix(files.metadata)}", files.metadata),
        ("rootfs", f"{image.fingerprint}{suffix(files.rootfs)}", files.rootfs),
    ]
    return await multipart(request, parts)


Handler = Callable[..., Answered]

ROUTES: Mapping[str, Mapping[str, Handler]] = {
    r"/": {"GET": _root},
    r"/1\.0": {"GET": _show, "PATCH": _change},
    r"/1\.0/config": {"GET": _list_config},
    r"/1\.0/config/(.+)": {"GET": _show_key},
    r"/1\.0/devices": {"GET": _devices},
    r"/1\.0/events": {"GET": _events},
    r"/1\.0/images/([0-9a-f]{1,64})/export": {"GET": _export},
    r"/1\.0/meta-data": {"GET": _metadata},
}
