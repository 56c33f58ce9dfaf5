"""Which processes have device files open. Taking a file away takes nothing from who has it open already."""

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

Number = tuple[int, int]  # major, minor


def users(proc: Path, pids: Iterable[int], numbers: Collection[Number]) -> dict[int, str]:
    """Of these processes, those that have one of these character devices open: pid to name.

    A process that ends meanwhile has none.
    """
    wanted = {os.makedev(*number) for number in numbers}
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            if any(_is_one(path, wanted) for path in (proc / str(pid) / "fd").iterdir()):
                found[pid] = (proc / str(pid) / "comm").read_text().strip()
    return found


def _is_one(path: Path, wanted: Collection[int]) -> bool:
    """By what is open, not by its name: that is another one in each container, and may be gone."""
    try:
        status = path.stat()
    except OSError:
        return False  # it has been closed
    return stat.S_ISCHR(status.st_mode) and status.st_rdev in wanted
