"""Telling a full disk from other failures, whoever met it: the kernel's error, or a program that gave up."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.errors import Error, Exhausted
from lxdpy.host.run import CommandFailed

FULL = (errno.ENOSPC, errno.EDQUOT)
PROBE = 2**20  # bytes; less than that free counts as full


class StorageFailed(Error):
    """The file system of a pool refuses."""


@asynccontextmanager
async def room_in(folder: Path, purpose: str) -> AsyncIterator[None]:
    """Raises Exhausted for what failed as `folder` is full, StorageFailed for other errors of the kernel."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Exhausted(f"No space left to {purpose}") from None
        raise StorageFailed(f"Could not {purpose}: {error.strerror}") from error
    except CommandFailed:
        if await asyncio.to_thread(is_full, folder):
            raise Exhausted(f"No space left to {purpose}") from None
        raise


def is_full(folder: Path) -> bool:
    """Whether the file system of `folder` has no room: by taking some. Blocks."""
    probe = folder / ".lxdpy-probe"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, PROBE)
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)  # who else looks just now has had it too
    except OSError as error:
        return error.errno in FULL
    return False
