"""Work on the queue that may take long in a large cluster, done on the loop without holding it up."""

import asyncio
import time
from typing import TypeVar

from cluster.scheduler.queue import Work

Made = TypeVar("Made")
BREATH = 0.01  # seconds of work until others get their turn


async def in_steps(work: Work[Made]) -> Made:
    """Its outcome. What it reads must not change meanwhile; a state never does."""
    begun = time.monotonic()
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Made = end.value
            return made
        if time.monotonic() - begun > BREATH:
            await asyncio.sleep(0)
            begun = time.monotonic()
