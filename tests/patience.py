"""Waiting in unit tests: for what must become so, and long enough for a machine that has much else to do."""

import asyncio
from collections.abc import Callable

WITHIN = 30.0  # seconds; what is waited for takes milliseconds on an idle machine


async def eventually(check: Callable[[], object], within: float = WITHIN) -> None:
    """Until `check` is true. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not check():  # noqa: ASYNC110  # what is waited for may be in another thread
            await asyncio.sleep(0.01)
