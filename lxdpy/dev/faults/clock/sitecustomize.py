"""A wall clock that can be set for one process: Python imports this first if its folder is in PYTHONPATH.

The file `$LXD_DIR.clock` has how many seconds it is off; it is read again ten times a second.
"""

import os
import time
from pathlib import Path

AGAIN = 0.1  # seconds of the monotonic clock, which stays as it is
_true, _true_ns = time.time, time.time_ns


class _Offset:
    def __init__(self) -> None:
        self._path = Path(os.environ.get("LXD_DIR", "/nowhere") + ".clock")
        self._read_at = float("-inf")
        self._seconds = 0.0

    def seconds(self) -> float:
        if time.monotonic() - self._read_at > AGAIN:
            self._read_at = time.monotonic()
            if self._path.exists():
                self._seconds = float(self._path.read_text())
        return self._seconds


_offset = _Offset()


def _now() -> float:
    return _true() + _offset.seconds()


def _now_ns() -> int:
    return _true_ns() + int(_offset.seconds() * 1e9)


time.time, time.time_ns = _now, _now_ns
