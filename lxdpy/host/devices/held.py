"""What a disk shows, mounted once more at a place that the container's root can reach.

LXC mounts a container's disks as the container's root, who cannot follow a path through folders that are
closed to all but the host's root: a user's home, or the pools' folders. So the host's root mounts it at a
place of its own for each disk first. Nobody else may pass there.
"""

import contextlib
import os
from pathlib import Path

from lxdpy.host import mounts
from lxdpy.host.storage.layout import make_folder


def hold(source: str, place: Path, owner: int, *, recursive: bool, readonly: bool) -> None:
    """Mount `source`, a folder or a file, at `place`, which only the user `owner` can reach. What was mounted
    there before was another start's.
    """
    prepare(place, owner, directory=os.path.isdir(source))
    tree = mounts.mapped_tree(source, 0, readonly=readonly, recursive=recursive)
    mounts.attach_tree(tree, str(place))


def prepare(place: Path, owner: int, *, directory: bool) -> None:
    """An empty place to mount something at, with nothing mounted there any more."""
    release(place)
    make_folder(place.parent.parent, 0o711)
    make_folder(place.parent, 0o100)
    os.chown(place.parent, owner, owner)
    if directory:
        make_folder(place, 0o700)
    else:
        place.touch(mode=0o600)


def release(place: Path) -> None:
    """Idempotent. Never removes anything but the empty place."""
    mounts.unmount(str(place), lazy=True)
    with contextlib.suppress(OSError):
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
        elif place.stat().st_size == 0:
            place.unlink()
    with contextlib.suppress(OSError):
        place.parent.rmdir()  # the last one's
