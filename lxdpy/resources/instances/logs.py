"""/1.0/instances/<name>/logs: files the runtime and recorded programs left."""

import asyncio
import re
from pathlib import Path

from aiohttp import web

from cluster.errors import Forbidden, NotFound
from lxdpy.resources.instances.announce import announce
from lxdpy.resources.instances.handlers import found, owner
from lxdpy.resources.wire import url
from lxdpy.rest.replies import file, raw, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/instances")

SHOWN = re.compile(r"lxc\.log|lxc\.conf|console\.log|exec_[0-9a-f-]{36}\.(stdout|stderr)")
OF_ALL = "lxc.log"  # as in LXD of what never ran, too: `lxc info --show-log` counts on it
OURS = re.compile(r"exec_.*")  # those that a client may delete


@routes.on("GET", "/{name}/logs", entitlement="can_view", owner=owner)
async def list_logs(call: Call[None]) -> web.Response:
    row, logs = found(call), folder(call)
    files = await asyncio.to_thread(lambda: [p.name for p in logs.iterdir()] if logs.is_dir() else [])
    base = f"instances/{row.name}/logs"
    names = sorted({OF_ALL, *filter(SHOWN.fullmatch, files)})
    return sync([url(base, name, project=row.project) for name in names])


@routes.on("GET", "/{name}/logs/{file}", entitlement="can_view", owner=owner)
async def show_log(call: Call[None]) -> web.StreamResponse:
    if call.path("file") == OF_ALL and not (folder(call) / OF_ALL).is_file():
        reply: web.StreamResponse = raw(b"", headers={"Content-Disposition": f"inline;filename={OF_ALL}"})
    else:
        reply = file(path_of(call))
    announce(call.daemon, found(call), "instance-log-retrieved", "logs", call.path("file"))
    return reply


@routes.on("DELETE", "/{name}/logs/{file}", entitlement="can_edit", owner=owner)
async def delete_log(call: Call[None]) -> web.Response:
    path = path_of(call)
    if not OURS.fullmatch(path.name):
        raise Forbidden(f"Only log files of executed commands may be deleted, not {path.name}")
    path.unlink(missing_ok=True)
    announce(call.daemon, found(call), "instance-log-deleted", "logs", path.name)
    return sync()


def folder(call: AnyCall) -> Path:
    return call.daemon.runtime.paths(found(call).volume).logs


def path_of(call: AnyCall) -> Path:
    """Raises NotFound for a file that is not there, or is not one of ours."""
    name = call.path("file")
    path = folder(call) / name
    if not SHOWN.fullmatch(name) or not path.is_file():
        raise NotFound(f"Log file not found: {name}", file=name)
    return path
