"""Named places where a test may inject an error, a delay or a crash. Nothing happens outside tests.

In the same process: `with inject("journal.sync", OSError(errno.ENOSPC, "full")): ...`. In a daemon, by
environment: ``LXDPY_FAILPOINTS="journal.rewrite=crash,journal.sync=delay:0.3,image.unpack=error:disk full"``;
``errno:ENOSPC`` is an OSError. An action with ``@3`` behind it (``crash@3``) strikes at the third visit only.
"""

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.errors import Error

VARIABLE = "LXDPY_FAILPOINTS"

Action = BaseException | float | Callable[[], None]  # to raise · seconds to wait · to call


class _Crash:
    """Kill this process as a power cut would: nothing is flushed, nothing is cleaned up."""

    def __call__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _Nth:
    """Let the first visits pass."""

    def __init__(self, visits: int, action: Action) -> None:
        self._left = visits
        self._action = action

    def due(self) -> Action | None:
        self._left -= 1
        return self._action if self._left == 0 else None


_active: dict[str, Action | _Nth] = {}


def hit(name: str) -> None:
    """A place in blocking code. Delays block the thread."""
    action = _due(name)
    if isinstance(action, BaseException):
        raise action
    if isinstance(action, float | int):
        time.sleep(action)
    elif action is not None:
        action()


async def reach(name: str) -> None:
    """A place in async code. Delays let the loop go on."""
    action = _due(name)
    if isinstance(action, float | int):
        await asyncio.sleep(action)
    elif isinstance(action, BaseException):
        raise action
    elif action is not None:
        action()


def _due(name: str) -> Action | None:
    if not _active:
        return None
    action = _active.get(name)
    return action.due() if isinstance(action, _Nth) else action


@contextmanager
def inject(name: str, action: Action, *, visit: int = 0) -> Iterator[None]:
    """Act at the place `name`: at every visit, or only at the `visit`-th."""
    _active[name] = _Nth(visit, action) if visit else action
    try:
        yield
    finally:
        del _active[name]


def load(setting: str) -> None:
    """Activate what the environment asks for. Raises ValueError for what it cannot read."""
    for part in filter(None, setting.split(",")):
        name, _, text = part.strip().partition("=")
        text, _, visit = text.partition("@")
        _active[name] = _Nth(int(visit), _action(text)) if visit else _action(text)


def _action(text: str) -> Action:
    verb, _, argument = text.partition(":")
    if verb == "crash":
        return _Crash()
    if verb == "delay":
        return float(argument)
    if verb == "errno" and isinstance(getattr(errno, argument, None), int):
        number = getattr(errno, argument)
        return OSError(number, os.strerror(number))
    if verb == "error":
        return Error(argument or "injected")
    raise ValueError(f"{VARIABLE}: unknown action {text!r}")


load(os.environ.get(VARIABLE, ""))
