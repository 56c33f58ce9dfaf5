"""/1.0/instances/<name>/console: the terminal of its first process, and the log of what that showed."""

import asyncio
import os
from pathlib import Path

from aiohttp import web

from cluster.errors import Invalid
from lxdpy.resources.instances.announce import announce
from lxdpy.resources.instances.consoles import Console, Viewer
from lxdpy.resources.instances.exec import check_running
from lxdpy.resources.instances.handlers import found, owner, resources
from lxdpy.resources.instances.model import InstanceConsolePost
from lxdpy.resources.operations.operation import Operation
from lxdpy.rest.replies import asynchronous, raw, sync
from lxdpy.rest.route import AnyCall, Call, Routes
from lxdpy.rest.websocket import CONTROL, Sockets, check_size, size_of, to_fd

routes = Routes("/1.0/instances")


@routes.on("POST", "/{name}/console", body=InstanceConsolePost, entitlement="can_access_console", owner=owner)
async def attach_console(call: Call[InstanceConsolePost]) -> web.Response:
    row, body, daemon = found(call), call.body, call.daemon
    if body.type == "vga":
        raise Invalid("VGA console is only supported by virtual machines", key="type")
    if body.type not in ("", "console"):
        raise Invalid(f'Unknown console type "{body.type}"', key="type")
    rows, columns = check_size(body.height, body.width)
    check_running(daemon, row)
    sockets = Sockets(("0", CONTROL), outputs=("0",))

    async def attended(_: Operation) -> None:
        async with daemon.consoles.viewed(row.volume) as (console, viewer):
            await sockets.wait()
            if rows and columns:
                console.resize(rows, columns)
            await view(sockets, console, viewer)

    started = daemon.operations.start(
        "Showing console", resources(row), attended, kind="websocket", sockets=sockets, project=row.project
    )
    announce(daemon, row, "instance-console", type="console")
    return asynchronous(started)


async def view(sockets: Sockets, console: Console, viewer: Viewer) -> None:
    """Join the client's sockets with the console, until it ends or the client goes."""
    socket = await sockets.get("0")

    async def typed() -> None:
        await to_fd(socket, console)
        viewer.end()

    async def controlled() -> None:
        async for message in sockets.controls():
            if message.command == "window-resize" and (size := size_of(message)):
                console.resize(*size)
        viewer.end()  # that is how the stock client detaches

    async with asyncio.TaskGroup() as tasks:
        inward = [tasks.create_task(typed()), tasks.create_task(controlled())]
        try:
            while data := await viewer.read():
                await socket.send_bytes(data)
        except ConnectionError:
            pass  # the client is gone
        for task in inward:
            task.cancel()


@routes.on("GET", "/{name}/console", entitlement="can_access_console", owner=owner)
async def show_console_log(call: Call[None]) -> web.Response:
    """What the console showed since the start, 128 KiB at most; empty if nothing was logged."""
    text = await asyncio.to_thread(_read, log_of(call))
    announce(call.daemon, found(call), "instance-console-retrieved")
    return raw(text, headers={"Content-Disposition": "inline;filename=console.log"})


@routes.on("DELETE", "/{name}/console", entitlement="can_access_console", owner=owner)
async def clear_console_log(call: Call[None]) -> web.Response:
    await asyncio.to_thread(_clear, log_of(call))
    announce(call.daemon, found(call), "instance-console-reset")
    return sync()


def log_of(call: AnyCall) -> Path:
    return call.daemon.runtime.paths(found(call).volume).console


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _clear(path: Path) -> None:
    """LXC's monitor goes on writing to the same file, at its end."""
    if path.is_file():
        os.truncate(path, 0)
