"""Records: what a volume is, in a file kept with it, by which it can be registered anew without the database.

    containers/NAME/backup.yaml     beside the root file system, out of the container's reach
    custom-records/ID.yaml          a custom volume's own folder is its users', to the last file

They are root's alone, and only such are read: what anybody else could have written counts for nothing. Not
synced, as a daemon that starts writes again what differs. All of it blocks, for a moment.
"""

import contextlib
import os
import stat
from pathlib import Path

from lxdpy.host.storage.driver import Volume
from lxdpy.host.storage.layout import RECORDS, CorruptVolume, make_folder

RECORD = "backup.yaml"
LARGEST = 1 << 24  # bytes: thousands of snapshots


def record_path(folder: Path, volume: Volume) -> Path:
    """Where the record is of the volume that has this folder."""
    if volume.kind == "custom":
        return folder.parents[1] / RECORDS / f"{volume.name}.yaml"
    return folder / RECORD


def write(folder: Path, volume: Volume, text: bytes) -> None:
    """Whole or not at all; nothing if it is there already, or the volume is not."""
    if not folder.is_dir():
        return
    path = record_path(folder, volume)
    with contextlib.suppress(FileNotFoundError, CorruptVolume):
        if read(folder, volume) == text:
            return
    if volume.kind == "custom":
        make_folder(path.parent, 0o700)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read(folder: Path, volume: Volume) -> bytes:
    """Raises FileNotFoundError; CorruptVolume for what another than the daemon may have put there."""
    path = record_path(folder, volume)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptVolume(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise CorruptVolume(f"{path} is not a file that only root can write")
        if found.st_size > LARGEST:
            raise CorruptVolume(f"{path} is longer than {LARGEST} bytes")
        return file.read(LARGEST)


def forget(folder: Path, volume: Volume) -> None:
    """Of a custom volume that is about to go. Idempotent."""
    record_path(folder, volume).unlink(missing_ok=True)
