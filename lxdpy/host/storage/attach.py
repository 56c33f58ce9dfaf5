"""Putting a pool's source at its place below `storage-pools/`, and taking it away."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import Error, Invalid
from lxdpy.host.run import CommandFailed, run
from lxdpy.host.storage.driver import Pool
from lxdpy.host.storage.layout import VolumeInUse, make_folder, mounted

MOUNT_FOR = 120.0  # seconds; a large btrfs replays its log first


class PoolFailed(Error):
    """The host cannot make or open the pool."""


@contextmanager
def told(pool: Pool) -> Iterator[None]:
    """What the kernel refuses while a pool is made or opened, as an error for its user."""
    try:
        yield
    except OSError as error:
        raise PoolFailed(f"Storage pool {pool.name}: {error}", pool=pool.name) from None


def same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


async def bind(source: Path, mount: Path) -> None:
    """Show the folder `source` at `mount`; idempotent."""
    if mounted(mount) or same(mount, source):
        return
    make_folder(mount, 0o711)
    await run("mount", "--bind", source, mount, timeout=MOUNT_FOR)


async def mount_device(source: Path, mount: Path, kind: str, options: str) -> None:
    """Mount a device, or with `loop` among the options a file; idempotent."""
    if mounted(mount):
        return
    make_folder(mount, 0o711)
    await run("mount", "-t", kind, "-o", options, source, mount, timeout=MOUNT_FOR)


async def detach(mount: Path) -> None:
    """Idempotent. Raises VolumeInUse while anything below is open or mounted."""
    if not mounted(mount):
        return
    try:
        await run("umount", mount, timeout=MOUNT_FOR)
    except CommandFailed:
        if mounted(mount):
            raise VolumeInUse(f"The storage pool is in use: {mount.name}", pool=mount.name) from None


def empty_source(source: str) -> Path:
    """The folder a user brings. Raises Invalid unless it is an absolute path to an empty one."""
    path = Path(source)
    if not path.is_absolute():
        raise Invalid(f'Storage pool source must be an absolute path: "{source}"', key="source")
    try:
        inside = os.listdir(path)
    except OSError as error:
        reason = {errno.ENOENT: "does not exist", errno.ENOTDIR: "is not a folder"}
        why = reason.get(error.errno or 0, "cannot be read")
        raise Invalid(f'Storage pool source {why}: "{source}"', key="source") from None
    if inside:
        raise Invalid(f'Storage pool source is not empty: "{source}"', key="source")
    return path
