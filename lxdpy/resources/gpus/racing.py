"""GPUs are chosen on what a member has seen, and granted by all members: another may be faster."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.errors import Conflict, Exhausted
from lxdpy.resources.gpus.commands import RACED

Made = TypeVar("Made")


async def unless_raced(attempt: Callable[[], Awaitable[Made]], tries: int, what: str) -> Made:
    """What comes of `attempt`, which chooses anew each time that another was faster.

    `what` each time, in words, if that was so to the end: Exhausted.
    """
    for _ in range(tries):
        try:
            return await attempt()
        except Conflict as lost:
            if RACED not in lost.facts:
                raise
    raise Exhausted(f"Others were faster {what}; try again")
