"""Work beside the Raft thread: writing files that count only later, when that thread says so.

It may take long, so that the others never wait long: for the interpreter, which they get between any two
parts, nor for the disk, which never has much to do at once.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

SYNC_EVERY = 1 << 20  # bytes; else who syncs a line of the log waits until all of a large file is written
REST = 0.002  # seconds between parts: as long as one takes

Part = TypeVar("Part")

Work = Callable[[], None]
Spawn = Callable[[Work], Callable[[], None]]
"""Starts work; returns what waits for its end."""


def in_thread(work: Work) -> Callable[[], None]:
    thread = threading.Thread(target=work, name="raft-files", daemon=True)
    thread.start()
    return thread.join


def unhurried(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, and a rest before each further one."""
    for number, part in enumerate(parts):
        if number:
            time.sleep(REST)
        yield part


def let_go(fd: int) -> None:
    """Close, in a thread of its own: a large file that has lost its name is freed by it, for tens of
    milliseconds."""
    in_thread(partial(os.close, fd))
