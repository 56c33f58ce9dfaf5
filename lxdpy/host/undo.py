"""Taking steps back: the undo of each step is written beside the step."""

import inspect
import logging
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self

P = ParamSpec("P")

log = logging.getLogger(__name__)


class Undo:
    """Steps to take back, newest first, if the `async with` block raises or is cancelled.

    A step is a function, or a function that gives an awaitable. One that fails is logged and does not keep
    the others from running; the block's own exception goes on to the caller either way.
    """

    def __init__(self) -> None:
        self._steps: list[partial[object]] = []

    def push(self, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Remember how to take back what was just done (or is about to be: steps must bear being idle)."""
        self._steps.append(partial(step, *args, **kwargs))

    def forget(self) -> None:
        """Keep what was done so far, whatever happens next."""
        self._steps.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return
        while self._steps:
            step = self._steps.pop()
            try:
                result = step()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                # Its name alone: what it was to work on may be the whole daemon.
                log.exception("undo failed: %s", getattr(step.func, "__qualname__", "a step"))
