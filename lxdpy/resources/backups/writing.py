"""The file of a backup on its way to disk, whatever it is a backup of."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from lxdpy.host import backup_archive
from lxdpy.host.backup_archive import BLOCK, PIECE, header
from lxdpy.host.storage.room import room_in
from lxdpy.resources.operations.operation import Operation

TOLD_AFTER = 1.0  # seconds


async def write(
    target: Path, tarball: AsyncGenerator[bytes, None], compression: str, operation: Operation
) -> None:
    """Raises Exhausted, Unsupported without the compressor. What there is of it then is for the caller."""
    await asyncio.to_thread(target.parent.mkdir, mode=0o700, exist_ok=True)
    async with room_in(target.parent, "write the backup"):
        with await asyncio.to_thread(_open, target) as file:
            async with aclosing(_told(tarball, operation)) as chunks:
                await backup_archive.write(chunks, file, compression)
            await asyncio.to_thread(os.fsync, file.fileno())


def _open(path: Path) -> IO[bytes]:
    return open(path, "wb", 0, opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600))


async def _told(chunks: AsyncGenerator[bytes, None], operation: Operation) -> AsyncGenerator[bytes, None]:
    """The same, with what was done as the operation's progress.

    As in LXD not within the first second: clients that print the file itself print that among it.
    """
    done, began = 0, time.monotonic()
    async with aclosing(chunks):
        async for chunk in chunks:
            done += len(chunk)
            if (seconds := time.monotonic() - began) > TOLD_AFTER:
                rate = f"{done / 1e6 / seconds:.2f}MB/s"
                operation.progress(create_backup_progress=f"{done / 1e6:.2f}MB ({rate})")
            yield chunk


async def spooled(
    name: str, stream: AsyncGenerator[bytes, None], folder: Path
) -> AsyncGenerator[bytes, None]:
    """The stream as a file of a tarball. That says first how long a file is, so it waits in `folder`."""
    with TemporaryFile(dir=folder) as file:
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        size = file.tell()
        file.seek(0)
        yield header(name, size, time.time())
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
        yield bytes(-size % BLOCK)


async def names_in(folder: Path) -> set[str]:
    """Of the files that are backups."""

    def listed() -> set[str]:
        return {name for name in os.listdir(folder) if not name.startswith(".")} if folder.is_dir() else set()

    return await asyncio.to_thread(listed)
