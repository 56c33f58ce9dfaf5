"""The daemon's side of proxies: their processes, and the sockets these leave. See `lxdpy.host.proxy`."""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from cluster.errors import Conflict
from lxdpy.host.companion import control
from lxdpy.host.companion.process import born
from lxdpy.host.proxy.addresses import Endpoint, Forward
from lxdpy.host.proxy.sockets import is_left

PROGRAM = "lxdpy.host.proxy.program"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """`Forward` for one life of a container, in the process's words."""

    bind: str
    listen: list[dict[str, str | int]]
    connect: list[dict[str, str | int]]
    owner: tuple[int, int, int]
    security: tuple[int, int]
    header: bool
    init: int
    born: int


async def ensure(file: Path, forward: Forward, init: int) -> int:
    """Have the file's process do that for the container whose first process is `init`; its pid.

    One that does it already is left alone. Raises CompanionFailed, if it cannot listen where it should.
    """
    return await control.ensure(file, PROGRAM, await asyncio.to_thread(_task, forward, init))


def _task(forward: Forward, init: int) -> bytes:
    try:
        begun = born(init)
    except OSError:
        raise Conflict("The instance is not running") from None
    listen, connect = _each(forward.listen), _each(forward.connect)
    task = Task(
        bind=forward.bind,
        listen=listen,
        connect=connect * len(listen) if len(connect) == 1 else connect,
        owner=forward.owner,
        security=forward.security,
        header=forward.header,
        init=init,
        born=begun,
    )
    return msgspec.json.encode(task)


def _each(side: Endpoint) -> list[dict[str, str | int]]:
    return [{"kind": side.kind, "host": side.host, "port": port} for port in side.ports or (0,)]


async def stop(file: Path) -> None:
    """End the process, and wait for that. Idempotent."""
    await control.stop(file)


async def remove_socket(path: str) -> None:
    """Remove the file of a unix socket on the host that a proxy which has ended leaves."""
    await asyncio.to_thread(_remove_socket, path)


def _remove_socket(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if is_left(path):
            os.unlink(path)
