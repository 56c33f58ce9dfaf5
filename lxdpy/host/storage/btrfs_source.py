"""Where a btrfs pool's disk comes from: a file made for it, a block device, or a folder on btrfs."""

import logging
import os
import stat
from pathlib import Path

from cluster.errors import Invalid
from lxdpy.config.types import size
from lxdpy.host.run import run
from lxdpy.host.storage import attach, btrfs_ioctl
from lxdpy.host.storage.driver import Pool
from lxdpy.host.storage.layout import make_folder, mounted, need, part_of, remove_tree
from lxdpy.host.undo import Undo

log = logging.getLogger(__name__)

GIB = 2**30
LEAST, MOST = 5 * GIB, 30 * GIB  # bytes of a loop file of no given size, as LXD chooses
SMALLEST = 128 * 2**20  # bytes; mkfs.btrfs wants 109 MiB
SUPERBLOCK = 65536  # byte at which it lies
MAGIC, MAGIC_AT, LABEL_AT = b"_BHRfS_M", 64, 299


async def create(pool: Pool, options: str) -> None:
    """Make the file system, unless that was done, and mount it. If it fails nothing is left."""
    if mounted(pool.mount):
        return
    source = pool.config.get("source", "")
    async with Undo() as undo:
        if not source or source == str(pool.loop_file):
            if not pool.loop_file.exists():  # else made by a create that was cut short, or by a server before
                undo.push(pool.loop_file.unlink, missing_ok=True)
                await _make_loop_file(pool)
        elif _is_device(Path(source)):
            await _format(Path(source), pool.name)
        else:
            folder = attach.empty_source(source)
            _check_btrfs(folder)
        await open_(pool, options)
        undo.push(attach.detach, pool.mount)
        if not _is_folder(source):  # quotas of a file system that is not ours are its owner's business
            _enable_quota(pool)


def _enable_quota(pool: Pool) -> None:
    try:
        btrfs_ioctl.enable_quota(pool.mount)
    except OSError as error:
        log.warning("storage pool %s has no quotas: %s", pool.name, error)


async def open_(pool: Pool, options: str) -> None:
    """Mount it; idempotent."""
    source = pool.config.get("source", "")
    if not source or source == str(pool.loop_file):
        await attach.mount_device(
            pool.loop_file, pool.mount, "btrfs", ",".join(filter(None, ["loop", options]))
        )
    elif _is_device(Path(source)):
        await attach.mount_device(Path(source), pool.mount, "btrfs", options or "defaults")
    else:
        await attach.bind(need(Path(source), "Storage pool source"), pool.mount)


async def delete(pool: Pool, folders: tuple[str, ...]) -> None:
    """Unmount and unmake it, its subvolumes being gone; idempotent."""
    source = pool.config.get("source", "")
    if pool.mount.exists():
        for name in folders:
            await remove_tree(pool.mount / name)
    await attach.detach(pool.mount)
    await remove_tree(pool.mount)
    pool.loop_file.unlink(missing_ok=True)
    if source and _is_device(Path(source)) and _label(Path(source)) == pool.name:
        await run("wipefs", "--all", source)


async def _make_loop_file(pool: Pool) -> None:
    wanted = pool.config.get("size")
    length = size(wanted) if wanted else _usual_size(pool.lxd_dir)
    if length < SMALLEST:
        raise Invalid(f"A btrfs storage pool needs at least {SMALLEST // 2**20}MiB: {wanted}", key="size")
    part = part_of(pool.loop_file)
    make_folder(part.parent, 0o700)
    with part.open("wb") as file:
        part.chmod(0o600)
        file.truncate(length)
    await run("mkfs.btrfs", "--quiet", "--force", "--label", pool.name, part)
    part.rename(pool.loop_file)


def _usual_size(folder: Path) -> int:
    free = os.statvfs(folder)
    return min(max(free.f_bavail * free.f_frsize // 5, LEAST), MOST)


async def _format(device: Path, label: str) -> None:
    """Not over what another made: mkfs refuses a device on which it finds a file system."""
    if _label(device) != label:
        await run("mkfs.btrfs", "--quiet", "--label", label, device)


def _label(device: Path) -> str | None:
    with device.open("rb") as file:
        file.seek(SUPERBLOCK)
        block = file.read(4096)
    if block[MAGIC_AT : MAGIC_AT + 8] != MAGIC:
        return None
    return block[LABEL_AT : LABEL_AT + 256].split(b"\0")[0].decode(errors="replace")


def _check_btrfs(folder: Path) -> None:
    probe = folder / ".lxdpy-probe"
    try:
        btrfs_ioctl.create(probe)
    except OSError:
        raise Invalid(f'Storage pool source is not on btrfs: "{folder}"', key="source") from None
    btrfs_ioctl.destroy(probe)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False


def _is_folder(source: str) -> bool:
    return bool(source) and Path(source).is_dir()
