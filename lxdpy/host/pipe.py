"""Programs that bytes stream through: tar at both ends of a transfer, compressors in between."""

import asyncio
import contextlib
import os
import shlex
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

from cluster.errors import Unsupported
from lxdpy.host.run import ENVIRONMENT, TAIL, CommandFailed, let_go

PIECE = 1 << 20  # bytes read or written at once


@asynccontextmanager
async def running(*argv: str | os.PathLike[str], stdout: int | IO[bytes] = PIPE) -> AsyncIterator[Process]:
    """The program, with pipes as its stdin and stdout; killed if the block fails or is cancelled.

    At the end of the block it must have been given its whole input: its end is waited for. Raises
    CommandFailed with the end of its stderr, Unsupported when it is not installed.
    """
    words = [os.fspath(word) for word in argv]
    with tempfile.TemporaryFile() as errors:
        try:
            child = await asyncio.create_subprocess_exec(
                *words, stdin=PIPE, stdout=stdout, stderr=errors, env=dict(ENVIRONMENT), limit=PIECE
            )
        except FileNotFoundError:
            raise Unsupported(f"Program not installed: {words[0]}", program=words[0]) from None
        try:
            yield child
            await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
            await _forget(child)
        if child.returncode:
            errors.seek(0)
            tail = errors.read().decode(errors="replace").strip()[-TAIL:]
            failed = f"{words[0]} failed: {tail}"
            raise CommandFailed(failed, argv=shlex.join(words), status=str(child.returncode))


async def _forget(child: Process) -> None:
    """Wait for its end, with what is left in its pipes."""
    assert child.stdin is not None
    try:
        child.stdin.close()
        with contextlib.suppress(OSError):
            await child.stdin.wait_closed()
        while child.stdout is not None and await child.stdout.read(PIECE):
            pass
        await child.wait()
    finally:
        let_go(child)


async def output(*argv: str | os.PathLike[str]) -> AsyncGenerator[bytes, None]:
    """What the program writes; close the iterator to kill it. Raises as `running`, at the end."""
    async with running(*argv) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        while piece := await child.stdout.read(PIECE):
            yield piece


async def feed(
    chunks: AsyncIterable[bytes], *argv: str | os.PathLike[str], stdout: int | IO[bytes] = DEVNULL
) -> None:
    """Give the program all of `chunks` to read; it writes to `stdout`. Raises as `running`."""
    async with running(*argv, stdout=stdout) as child:
        assert child.stdin is not None
        try:
            async for chunk in chunks:
                child.stdin.write(chunk)
                await child.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            await child.wait()  # it gave up, and says why
            if not child.returncode:
                raise CommandFailed(f"{os.fspath(argv[0])} stopped reading", status="") from None
        child.stdin.close()
