"""Ways into a running container: programs, terminals, its console.

All that a container can put in the way is met by a child of the helper: what a path inside leads to may be of
a file system that never answers.
"""

import logging
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster.errors import Conflict
from lxdpy.host.lxc.client import ExecRequest, ExecSession, HelperClient, HelperFailed
from lxdpy.host.paths import InstancePaths

log = logging.getLogger(__name__)

Names = dict[str, Any]
"""What LXC knows a container by."""


class ConsoleEnd(NamedTuple):
    """What LXC's monitor copies the console to. All descriptors are the owner's."""

    terminal: int
    lease: int
    """Closing it gives the console back."""
    inner: int
    """The container's own terminal, which has the size that programs see; -1: it is not known."""


def passed(paths: InstancePaths, init: int) -> dict[str, Any]:
    """For `attach`: which system calls of what is started are refused, or made by others than the kernel."""
    native = {"native": True} if paths.native.exists() else {}
    if not paths.quiet_seccomp.exists():
        return native
    policy, quiet = str(paths.seccomp), str(paths.quiet_seccomp)
    return native | {"passed": {"policy": policy, "quiet": quiet, "to": str(paths.calls), "init": init}}


async def attach(
    helper: HelperClient, names: Names, request: ExecRequest, fds: Sequence[int], **more: Any
) -> ExecSession:
    return await helper.launch(
        "attach", fds, argv=list(request.argv), cwd=request.cwd, uid=request.uid, gid=request.gid,
        environment=[f"{key}={value}" for key, value in request.environment.items()],
        groups=list(request.groups), **names, **more,
    )  # fmt: skip


async def attach_on_terminal(
    helper: HelperClient, names: Names, request: ExecRequest, init: int, size: tuple[int, int]
) -> tuple[ExecSession, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        terminal = {"init": init, "size": size}
        session = await attach(helper, names, request, [theirs.fileno()], terminal=terminal)
        return session, _given(ours)[0]


async def open_console(helper: HelperClient, names: Names, init: int) -> ConsoleEnd:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        try:
            await helper.call("console", [theirs.fileno()], init=init, **names)
        except Conflict:
            raise Conflict("The console is in use by another program") from None
        found = _given(ours)
    return ConsoleEnd(found[0], found[1], found[2] if len(found) > 2 else -1)


async def say(helper: HelperClient, init: int, action: str, facts: Sequence[str]) -> None:
    """Have udev inside hear that a device came ("add") or went ("remove"), of which there are such facts.

    The container has it or has it no more, whether this is heard or not.
    """
    if facts:
        try:
            await helper.call("tell", [init], action=action, facts=[*facts])
        except HelperFailed as failed:
            log.warning("nobody inside was told of %s %s: %s", action, facts[0], failed)


def _given(end: socket.socket) -> list[int]:
    """Descriptors that a child sent before it answered."""
    return socket.recv_fds(end, 1, 3, socket.MSG_CMSG_CLOEXEC)[1]
