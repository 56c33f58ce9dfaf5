"""Folders of a pool, named as in LXD, and small deeds on folders that all drivers share.

containers/NAME                 0711, then 0100 and owned by the container's root: it may pass, no one else
containers-snapshots/NAME/SNAP  0700 below here and in the rest: files inside may be setuid root (see package)
custom/NAME  custom-snapshots/NAME/SNAP
custom-records/NAME.yaml        what custom volumes are, see `records`
images/FINGERPRINT
"""

import asyncio
import ctypes
import errno
import os
import shutil
import stat
from pathlib import Path

from cluster.errors import Conflict, Invalid, NotFound
from lxdpy.host.idmap import Idmap
from lxdpy.host.run import run
from lxdpy.host.storage.driver import KINDS, Kind, Pool, Space, Volume

FOLDERS: dict[Kind, str] = {"container": "containers", "custom": "custom"}
IMAGES = "images"
RECORDS = "custom-records"
FEW = 100  # files and folders: 2 ms, as much as a program takes that does nothing
REMOVE_FOR = 3600.0  # seconds; millions of files on a slow disk

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # fcntl.h, stdio.h

_libc = ctypes.CDLL(None, use_errno=True)  # CDLL lets other threads run during a call


class CorruptVolume(Invalid):
    """What was to become a volume's files is something else."""


class VolumeInUse(Conflict):
    """It is mounted, or mounted otherwise than asked."""


def volume_path(pool: Pool, volume: Volume) -> Path:
    folder = FOLDERS[volume.kind]
    if volume.snapshot:
        return pool.mount.joinpath(f"{folder}-snapshots", volume.name, volume.snapshot)
    return pool.mount.joinpath(folder, volume.name)


def snapshots_path(pool: Pool, volume: Volume) -> Path:
    """The folder of all snapshots of a volume."""
    return pool.mount.joinpath(f"{FOLDERS[volume.kind]}-snapshots", volume.name)


def image_path(pool: Pool, fingerprint: str) -> Path:
    return pool.mount.joinpath(IMAGES, fingerprint)


def part_of(path: Path) -> Path:
    """Where `path` is built before it is moved into place; the dot keeps it out of lists."""
    return path.with_name(f".{path.name}.part")


def top_folders() -> dict[str, int]:
    """The folders at the top of a pool, with their modes."""
    modes = {IMAGES: 0o700, RECORDS: 0o700}
    for name in FOLDERS.values():
        modes |= {name: 0o711 if name == "containers" else 0o700, f"{name}-snapshots": 0o700}
    return modes


def make_top(mount: Path) -> None:
    make_folder(mount, 0o711)
    for name, mode in top_folders().items():
        make_folder(mount / name, mode)


def make_folder(path: Path, mode: int) -> None:
    """With exactly that mode, whatever the umask; its parents are made if need be."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(mode)


def there(path: Path) -> bool:
    return os.path.lexists(path)


def mounted(path: Path) -> bool:
    """Whether something is mounted right there; unlike ismount, tells binds within one file system."""
    return there(path) and _mount_id(path) != _mount_id(path.parent)


def _mount_id(path: Path) -> str:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def entries(folder: Path) -> list[str]:
    """What is in there, unfinished parts and all; nothing if it is not there."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def named(folder: Path) -> list[str]:
    """What is in there, without unfinished parts."""
    return sorted(name for name in entries(folder) if not name.startswith("."))


def list_volumes(pool: Pool) -> list[Volume]:
    found = []
    for kind in KINDS:
        top = pool.mount / FOLDERS[kind]
        snapshots = pool.mount / f"{FOLDERS[kind]}-snapshots"
        found += [Volume(name, kind) for name in named(top)]
        found += [Volume(name, kind, snap) for name in named(snapshots) for snap in named(snapshots / name)]
    return found


def need(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise NotFound(f"{what} not found on this member: {path.name}")
    return path


def admit(folder: Path, idmap: Idmap | None) -> None:
    """Let the container's root pass through `folder`, and nobody else but the host's."""
    owner = idmap.base if idmap else 0
    os.chown(folder, owner, owner)
    folder.chmod(0o100 if idmap else 0o700)


def keep_parts(folder: Path) -> None:
    """Of what was unpacked for a container, keep what an instance has. Blocks. Raises CorruptVolume.

    The host reads these by path, so nothing may stand in for them, and no other name be there: drivers keep
    names of their own beside them.
    """
    for entry in list(os.scandir(folder)):
        wanted = {"rootfs": entry.is_dir, "templates": entry.is_dir, "metadata.yaml": entry.is_file}
        check = wanted.get(entry.name)
        if check is None and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif check is None:
            os.unlink(entry.path)
        elif not check(follow_symlinks=False):
            raise CorruptVolume(f"The files are not an instance's: {entry.name} is something else")
    if not (folder / "rootfs").is_dir():
        raise CorruptVolume("The files are not an instance's: there is no rootfs")


async def remove_tree(path: Path) -> None:
    """Delete it all; never goes into what is mounted below. Raises VolumeInUse for a mount."""
    if not there(path):
        return
    if mounted(path / "rootfs") or mounted(path):
        raise VolumeInUse(f"Still mounted: {path}")
    if not await asyncio.to_thread(_remove_few, path):
        await run("rm", "-rf", "--one-file-system", "--", path, timeout=REMOVE_FOR)


def _remove_few(path: Path) -> bool:
    """Delete a tree, if it is so small that a program would take longer to start. Otherwise False."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode) or not _has_few(path):
            return False
        shutil.rmtree(path)
    except OSError:
        return False  # the program says what it was
    return True


def _has_few(path: Path) -> bool:
    device, there = path.lstat().st_dev, 0
    for folder, folders, files in os.walk(path):
        there += len(folders) + len(files)
        if there > FEW or os.lstat(folder).st_dev != device:
            return False
    return True


async def disk_usage(path: Path) -> int:
    """Bytes its files take on disk, without what is mounted below."""
    if not there(path):
        return 0
    done = await run("du", "--summarize", "--block-size=1", "--one-file-system", "--", path, timeout=600)
    return int(done.stdout.split(maxsplit=1)[0])


def exchange(one: Path, other: Path) -> None:
    """Let two folders swap names in one step: no crash leaves neither."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))


def move(before: Path, after: Path) -> None:
    """Idempotent. Raises Conflict rather than overwrite."""
    if not before.exists():
        return
    if after.exists():
        raise Conflict(f"There is a volume of that name: {after.name}")
    before.rename(after)


def put(part: Path, path: Path) -> None:
    """Move a finished part into place. What was there, if anything, is then found at `part`."""
    if path.exists():
        exchange(part, path)
    else:
        part.rename(path)


def space_of(mount: Path) -> Space:
    stat = os.statvfs(mount)
    return Space(
        total=stat.f_blocks * stat.f_frsize,
        used=(stat.f_blocks - stat.f_bfree) * stat.f_frsize,
        inodes_total=stat.f_files,
        inodes_used=stat.f_files - stat.f_ffree,
    )


async def sync(path: Path) -> None:
    """Have all of its file system on disk: else a rename may outlive a crash, and the files' data not."""
    await asyncio.to_thread(_syncfs, path)


def _syncfs(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            code = ctypes.get_errno() or errno.EIO
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)
