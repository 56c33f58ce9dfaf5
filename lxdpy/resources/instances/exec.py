"""/1.0/instances/<name>/exec: programs inside, over websockets or recorded to log files."""

import asyncio
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from cluster.errors import Conflict, Invalid
from lxdpy.host.lxc.client import ExecRequest, ExecSession
from lxdpy.host.lxc.pty import resize
from lxdpy.resources.instances.announce import announce
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.handlers import found, owner, resources
from lxdpy.resources.instances.model import Instance, InstanceExecPost
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.wire import url
from lxdpy.rest.descriptor import Descriptor
from lxdpy.rest.replies import asynchronous
from lxdpy.rest.route import Call, Routes
from lxdpy.rest.websocket import CONTROL, Sockets, check_size, pipes, size_of, terminal

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

routes = Routes("/1.0/instances")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAST_ID = 2**32 - 2
HANGUP = 1  # SIGHUP
NOT_STARTED = {126: "Command not executable", 127: "Command not found"}


@routes.on("POST", "/{name}/exec", body=InstanceExecPost, entitlement="can_exec", owner=owner)
async def exec_instance(call: Call[InstanceExecPost]) -> web.Response:
    row, body, daemon = found(call), call.body, call.daemon
    check(body)
    check_running(daemon, row)
    request = request_of(body, expanded(call.state, row)[0])
    announce(daemon, row, "instance-exec", command=body.command)
    if body.wait_for_websocket:
        names, outputs = (("0",), ("0",)) if body.interactive else (("0", "1", "2"), ("1", "2"))
        sockets = Sockets((*names, CONTROL), outputs=outputs)

        async def attended(operation: Operation) -> None:
            await sockets.wait()
            run = interactive if body.interactive else plain
            status = await run(daemon, row, request, body, sockets)
            if status in NOT_STARTED:  # the stock client reads nothing more once the operation has failed
                await sockets.taken(outputs)
            ended(operation, status)

        metadata = {
            "command": body.command,
            "environment": request.environment,
            "interactive": body.interactive,
        }
        started = daemon.operations.start(
            "Executing command", resources(row), attended,
            kind="websocket", sockets=sockets, metadata=metadata, project=row.project,
        )  # fmt: skip
        return asynchronous(started)

    async def alone(operation: Operation) -> None:
        await recorded(daemon, row, request, operation, record=body.record_output)

    started = daemon.operations.start("Executing command", resources(row), alone, project=row.project)
    return asynchronous(started)


def check(body: InstanceExecPost) -> None:
    """Raises Invalid for what no container could run."""
    if not body.command:
        raise Invalid("A command is needed", key="command")
    environment = body.environment or {}
    given = {"command": body.command, "cwd": [body.cwd], "environment": [*environment, *environment.values()]}
    for key, texts in given.items():
        if any("\0" in text for text in texts):
            raise Invalid(f"{key}: null bytes cannot be passed on", key=key)
    for key, id in (("user", body.user), ("group", body.group)):
        if not 0 <= id <= LAST_ID:
            raise Invalid(f"{key}: {id} is not an id from 0 to {LAST_ID}", key=key)
    check_size(body.height, body.width)


def ended(operation: Operation, status: int) -> None:
    """Note the exit status. What could not be started is a failure, told as LXD does: by the status alone."""
    operation.update(**{"return": status})
    if status in NOT_STARTED:
        raise Invalid(NOT_STARTED[status])


def check_running(daemon: "Daemon", row: Instance) -> None:
    """Raises Invalid, with LXD's words."""
    status = daemon.runtime.state(row.volume).status
    if status != "Running":
        raise Invalid("Instance is not running" if status == "Stopped" else "Instance is frozen")


def request_of(body: InstanceExecPost, config: Config) -> ExecRequest:
    """With the environment LXD gives: PATH, HOME, USER, LANG, the instance's own, and the request's."""
    own = {k.removeprefix("environment."): v for k, v in config.items() if k.startswith("environment.")}
    root = body.user == 0
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    if root:
        environment |= {"HOME": "/root", "USER": "root"}
    environment |= own
    environment |= body.environment or {}
    return ExecRequest(
        argv=tuple(body.command),
        environment=environment,
        cwd=body.cwd or environment.get("HOME", "/"),
        uid=body.user,
        gid=body.group,
    )


async def interactive(
    daemon: "Daemon", row: Instance, request: ExecRequest, body: InstanceExecPost, sockets: Sockets
) -> int:
    """On a terminal of the container's own; the client going away hangs it up."""
    size = (body.height, body.width)
    session, master = await daemon.runtime.exec_on_terminal(row.volume, request, size)
    with Descriptor(master) as terminal_end:
        return await attend(session, sockets, terminal_end, None, {})


async def plain(
    daemon: "Daemon", row: Instance, request: ExecRequest, body: InstanceExecPost, sockets: Sockets
) -> int:
    """With a pipe for each of stdin, stdout and stderr."""
    del body
    with ExitStack() as open_ends:
        reads, writes = zip(*(os.pipe2(os.O_CLOEXEC) for _ in range(3)), strict=True)
        theirs = (reads[0], writes[1], writes[2])
        stdin = open_ends.enter_context(Descriptor(writes[0]))
        outputs = {str(n): open_ends.enter_context(Descriptor(reads[n])) for n in (1, 2)}
        try:
            session = await daemon.runtime.exec(row.volume, request, theirs)
        finally:
            for fd in theirs:
                os.close(fd)
        return await attend(session, sockets, None, stdin, outputs)


async def attend(
    session: ExecSession,
    sockets: Sockets,
    master: Descriptor | None,
    stdin: Descriptor | None,
    outputs: dict[str, Descriptor],
) -> int:
    """Join the program with the client's sockets until it ends, and the client has taken what it wrote, or is
    gone: somebody may be reading that page by page. Returns the exit status.
    """
    async with asyncio.TaskGroup() as tasks:
        control = tasks.create_task(obey(session, sockets, master))
        if master is not None:
            joined = tasks.create_task(terminal(sockets, master))
        else:
            assert stdin is not None
            joined = tasks.create_task(pipes(sockets, stdin, outputs))
        try:
            status = await session.wait()
        except asyncio.CancelledError:
            kill(session, HANGUP)
            raise
        for end in (master, *outputs.values()):
            if end is not None:
                end.finish()
        await asyncio.wait([joined])
        control.cancel()
    return status


async def obey(session: ExecSession, sockets: Sockets, master: Descriptor | None) -> None:
    """Do what the control socket says; when it closes, the client is gone and the program is hung up."""
    async for message in sockets.controls():
        if message.command == "window-resize" and master is not None and (size := size_of(message)):
            if master.fileno() >= 0:  # the client may be going
                resize(master.fileno(), *size)
        elif message.command == "signal" and 0 < message.signal < 65:
            kill(session, message.signal)
    kill(session, HANGUP)


def kill(session: ExecSession, number: int) -> None:
    """Fine if the program has ended: it may just have."""
    with suppress(Conflict):
        session.signal(number)


async def recorded(
    daemon: "Daemon", row: Instance, request: ExecRequest, operation: Operation, *, record: bool
) -> None:
    """Without a client: output goes to log files, or nowhere."""
    logs = daemon.runtime.paths(row.volume).logs
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    opened, output = [null], {}
    try:
        fds = [null, null, null]
        if record:
            for fd, name in ((1, "stdout"), (2, "stderr")):
                file = f"exec_{operation.id}.{name}"
                fds[fd] = _create(logs / file)
                opened.append(fds[fd])
                path = f"instances/{row.name}/logs/{file}"
                output[str(fd)] = url(path, project=row.project).removesuffix("/")
        session = await daemon.runtime.exec(row.volume, request, fds)
        status = await session.wait()
        if record:
            operation.update(output=output)
        ended(operation, status)
    finally:
        for fd in opened:
            os.close(fd)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
