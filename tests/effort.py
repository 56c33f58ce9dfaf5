"""How much random tests try: all of it where CI is set, a quarter before each commit."""

import os
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings

SHARE = 1 if os.environ.get("CI") else 4


def examples(count: int, suppress_health_check: Sequence[HealthCheck] = (), **more: Any) -> settings:
    """Settings of a test that tries so many in CI. Machines are loaded: no deadline unless one is given, and
    nothing is made of how long it takes to make the examples.
    """
    usual: dict[str, Any] = {"max_examples": max(count // SHARE, 10), "deadline": None}
    checks = [HealthCheck.too_slow, *suppress_health_check]
    return settings(**usual | more, suppress_health_check=checks)
