"""Python's garbage collector, kept from stopping the daemon while it looks at what is there to stay.

It stops all threads, for a millisecond per thousand objects, again whenever these have grown by a quarter;
an attached program takes 800 of them. So it looks at little, often: what a full collection left is set aside,
and not looked at by the next. Garbage that is found there only later is looked for when few clients are
attached.
"""

import gc
from collections.abc import Callable
from typing import Any

OFTEN = (700, 5, 0)  # as `gc.set_threshold`: a full collection looks at 8,400 objects, not 85,000
LOOK_EVERY = 60.0  # seconds
GROWN = 2  # times of what there was after the last look at all: then it may be worth another
LOST = 16  # times: then it is, whoever waits
FEW = 50  # operations that are under way


class Garbage:
    """One for the process. `busy` tells how many operations are under way."""

    def __init__(self, busy: Callable[[], int]) -> None:
        self._busy = busy
        self._kept = 0
        self._before = gc.get_threshold()

    def begin(self) -> None:
        """Set aside all that is there: modules, and the state."""
        gc.freeze()
        self._kept = gc.get_freeze_count()
        gc.callbacks.append(self._collected)
        gc.set_threshold(*OFTEN)

    def end(self) -> None:
        gc.set_threshold(*self._before)
        gc.callbacks.remove(self._collected)
        gc.unfreeze()

    async def look(self) -> None:
        """At all, if much was set aside since the last time."""
        there = gc.get_freeze_count()
        if there > LOST * self._kept or (there > GROWN * self._kept and self._busy() < FEW):
            self._thaw()

    def _collected(self, phase: str, facts: dict[str, Any]) -> None:
        if phase == "stop" and facts["generation"] == 2:
            gc.freeze()

    def _thaw(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._kept = gc.get_freeze_count()
