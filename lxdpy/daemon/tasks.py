"""The top of a daemon task: what goes wrong is said once, here, and takes nothing else down with it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cluster.errors import Error, NotFound

log = logging.getLogger(__name__)


async def guarded(work: Awaitable[object], name: str) -> None:
    """Do `work` to its end or failure. Only cancellation goes through."""
    try:
        await work
    except NotFound as gone:
        log.debug("%s: %s", name, gone.message)
    except Error as failure:
        log.error("%s: %s", name, failure.message)
    except Exception:
        log.exception("%s", name)


async def every(seconds: float, step: Callable[[], Awaitable[object]], name: str) -> None:
    """Do `step` again and again, with a pause in between, until cancelled."""
    while True:
        await guarded(step(), name)
        await asyncio.sleep(seconds)
