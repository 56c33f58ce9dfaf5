"""Subvolumes with the subvolumes inside them: a container may have made some (Docker does)."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

from lxdpy.host.storage import btrfs_ioctl
from lxdpy.host.storage.layout import make_folder, part_of, put, remove_tree, there
from lxdpy.host.undo import Undo


async def make_empty(path: Path) -> None:
    """A new subvolume that only root may enter; idempotent."""
    if not there(path):
        await asyncio.to_thread(_create, path)


def _create(path: Path) -> None:
    btrfs_ioctl.create(path)
    path.chmod(0o700)


async def clone(source: Path, target: Path, *, read_only: bool) -> None:
    """Make `target` a copy of `source`, in place of what it was: whole, or not at all."""

    async def make(part: Path) -> None:
        await asyncio.to_thread(_snapshot, source, part)

    await replace(target, make, read_only=read_only)


async def replace(target: Path, make: Callable[[Path], Awaitable[None]], *, read_only: bool) -> None:
    """Put the subvolume that `make` makes at a path in place of `target`: whole, or not at all."""
    part = part_of(target)
    if not target.parent.exists():
        make_folder(target.parent, 0o700)
    await remove(part)
    async with Undo() as undo:
        undo.push(remove, part)
        await make(part)
        if read_only:
            await asyncio.to_thread(btrfs_ioctl.set_read_only, part, True)
        put(part, target)
    await remove(part)


def _snapshot(source: Path, target: Path) -> None:
    btrfs_ioctl.snapshot(source, target)
    for child in btrfs_ioctl.children(source):
        (target / child).rmdir()  # the empty folder that stands for it
        _snapshot(source / child, target / child)


async def remove(path: Path) -> None:
    """Idempotent; a plain folder is removed too."""
    if not there(path):
        return
    if btrfs_ioctl.is_subvolume(path):
        await asyncio.to_thread(_destroy, path)
    else:
        await remove_tree(path)


def _destroy(path: Path) -> None:
    try:
        btrfs_ioctl.destroy(path)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        btrfs_ioctl.set_read_only(path, False)
        for child in btrfs_ioctl.children(path):
            _destroy(path / child)
        btrfs_ioctl.destroy(path)
