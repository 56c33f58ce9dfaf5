"""One process at a time works on a `$LXD_DIR`: a daemon, or what repairs a stopped one."""

import fcntl
import os
from pathlib import Path

from cluster.errors import Conflict


def only_one(root: Path) -> int:
    """A lock on `$LXD_DIR`, held until the handle is closed or the process ends. Raises Conflict, OSError."""
    handle = os.open(root / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Conflict(f"A daemon runs on {root}") from None
    return handle
