"""Streams of `btrfs send`: what a subvolume has become since another, or all of it."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

from cluster.errors import Unsupported
from lxdpy.host import pipe
from lxdpy.host.storage import btrfs_ioctl
from lxdpy.host.storage.btrfs_trees import remove
from lxdpy.host.storage.layout import CorruptVolume, remove_tree

ASIDE = ".receive-"  # how the names of folders begin, at the top of the pool, for what is coming
GOING = ".send-"  # and for the copy of what goes
Put = Callable[[AsyncIterable[bytes], Path], Awaitable[None]]


@asynccontextmanager
async def sent(
    mount: Path, path: Path, parent: Path | None, extra: Mapping[str, bytes]
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The stream of a subvolume; `extra` are files that only the stream has. Several may go at once.

    Only a snapshot that nobody can write to can be sent: of another, one is made for that. Raises Unsupported
    for a subvolume with others inside, which a stream does not carry.
    """
    if await asyncio.to_thread(btrfs_ioctl.children, path):
        raise Unsupported("There are subvolumes inside, which a stream of btrfs does not carry")
    words = ["-p", os.fspath(parent)] if parent else []
    async with AsyncExitStack() as stack:
        source = path
        if extra or not await asyncio.to_thread(btrfs_ioctl.is_read_only, path):
            folder = Path(await asyncio.to_thread(mkdtemp, prefix=GOING, dir=mount))
            stack.push_async_callback(_clear, folder)
            source = folder / path.name
            await asyncio.to_thread(_copy, path, source, extra)
        yield await stack.enter_async_context(
            aclosing(pipe.output("btrfs", "send", "--quiet", *words, source))
        )


def _copy(path: Path, copy: Path, extra: Mapping[str, bytes]) -> None:
    btrfs_ioctl.snapshot(path, copy)
    for name, content in extra.items():
        (copy / name).write_bytes(content)
        (copy / name).chmod(0o400)
    btrfs_ioctl.set_read_only(copy, True)


@asynccontextmanager
async def aside(mount: Path) -> AsyncIterator[Put]:
    """A way to receive streams. Each is kept as it came until the end; what is put is a copy of it."""
    folder = Path(await asyncio.to_thread(mkdtemp, prefix=ASIDE, dir=mount))

    async def put(chunks: AsyncIterable[bytes], part: Path) -> None:
        inside = Path(await asyncio.to_thread(mkdtemp, dir=folder))
        await pipe.feed(chunks, "btrfs", "receive", "--quiet", inside)
        found = os.listdir(inside)
        if len(found) != 1 or not btrfs_ioctl.is_subvolume(inside / found[0]):
            raise CorruptVolume("The stream is not that of one subvolume")
        await asyncio.to_thread(btrfs_ioctl.snapshot, inside / found[0], part)

    try:
        yield put
    finally:
        await _clear(folder)


async def sweep(mount: Path) -> None:
    """Remove what was coming or going when a daemon died."""
    for name in os.listdir(mount):
        if name.startswith((ASIDE, GOING)):
            await _clear(mount / name)


async def _clear(folder: Path) -> None:
    """With the subvolumes in it, and in the folders in it."""
    for inside in map(folder.joinpath, os.listdir(folder)):
        if not btrfs_ioctl.is_subvolume(inside):
            for name in os.listdir(inside):
                await remove(inside / name)
        await remove(inside)
    await remove_tree(folder)
