"""Starting programs: words, no shell; a fixed environment; a timeout; killed when the caller is cancelled."""

import asyncio
import logging
import os
import shlex
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.errors import Error, Unsupported

log = logging.getLogger(__name__)

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}
"""What every program gets. Numbers and messages must not depend on who started the daemon."""

T = TypeVar("T")

TAIL = 400  # characters of stderr in an error: enough for any tool's last words, short enough for one line


class CommandFailed(Error):
    """A program ended with a status other than 0, or took too long. Facts: argv, status ("" on timeout)."""


@dataclass(frozen=True)
class Finished:
    """What a program that ended well has written."""

    stdout: str
    stderr: str


async def run(
    *argv: str | os.PathLike[str], timeout: float = 60, stdin: str = "", env: Mapping[str, str] = ENVIRONMENT
) -> Finished:
    """Run `argv` to its end, for at most `timeout` seconds; never through a shell.

    Cancelling the caller kills the program. Raises CommandFailed with the end of its stderr, or
    Unsupported when the program is not installed.
    """
    words = [os.fspath(word) for word in argv]
    line = shlex.join(words)
    log.debug("run: %s", line)
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        child = await asyncio.create_subprocess_exec(
            *words, stdin=pipe if stdin else nothing, stdout=pipe, stderr=pipe, env=dict(env)
        )
    except FileNotFoundError:
        raise Unsupported(f"Program not installed: {words[0]}", program=words[0]) from None
    try:
        async with asyncio.timeout(timeout):
            out, err = await child.communicate(stdin.encode() or None)
    except TimeoutError:
        raise CommandFailed(f"{words[0]} took longer than {timeout:g} s", argv=line, status="") from None
    finally:
        await end(child)
    if child.returncode:
        tail = err.decode(errors="replace").strip()[-TAIL:]
        raise CommandFailed(f"{words[0]} failed: {tail}", argv=line, status=str(child.returncode))
    return Finished(out.decode(errors="replace"), err.decode(errors="replace"))


async def end(child: asyncio.subprocess.Process) -> None:
    """Kill it, if it runs, and let go of its pipes, though a child of it may hold them."""
    transport: asyncio.SubprocessTransport = child._transport  # type: ignore[attr-defined]
    try:
        if child.returncode is None:
            child.kill()
            for pipe in filter(None, map(transport.get_pipe_transport, range(3))):
                pipe.close()  # or asyncio tells of the end once all who hold them have ended
            await child.wait()
    finally:
        let_go(child)


def let_go(child: asyncio.subprocess.Process) -> None:
    """Of the pipes of one that has ended, or was killed: asyncio does so once all of them have ended."""
    child._transport.close()  # type: ignore[attr-defined]  # of the public ones nothing does it


async def to_its_end(work: Coroutine[Any, Any, T], within: float) -> T:
    """What comes of `work`. A caller that is cancelled waits for that, too, for `within` seconds at most:
    what goes on in a thread, or in a process that leaves others behind, must be over before it is undone.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([task], timeout=within)
        finally:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
