"""Failpoints: nothing in normal life, exactly what was asked for in a test."""

import asyncio
import errno
import subprocess
import sys
import time

import pytest

from cluster import failpoints
from cluster.errors import Error
from cluster.failpoints import hit, inject, load, reach


def test_nothing_happens_where_nothing_was_injected() -> None:
    hit("nowhere")
    asyncio.run(reach("nowhere"))


def test_an_injected_error_is_raised_only_there_and_only_then() -> None:
    with inject("here", OSError(28, "full")):
        hit("elsewhere")
        with pytest.raises(OSError, match="full"):
            hit("here")
        with pytest.raises(OSError, match="full"):
            asyncio.run(reach("here"))
    hit("here")


def test_a_delay_waits() -> None:
    with inject("here", 0.05):
        before = time.monotonic()
        hit("here")
        asyncio.run(reach("here"))
    assert time.monotonic() - before >= 0.1


def test_only_the_visit_that_was_asked_for_strikes() -> None:
    visits = []
    with inject("here", lambda: visits.append(1), visit=2):
        hit("here")
        assert visits == []
        hit("here")
        asyncio.run(reach("here"))
    assert visits == [1]


def test_the_environment_can_ask_for_it() -> None:
    load("one=error:disk full, two=delay:0,three=error:x@2,four=errno:ENOSPC")
    try:
        with pytest.raises(Error, match="disk full"):
            hit("one")
        hit("two")
        hit("three")
        with pytest.raises(Error, match="x"):
            hit("three")
        with pytest.raises(OSError, match="No space") as raised:
            hit("four")
        assert raised.value.errno == errno.ENOSPC
    finally:
        failpoints._active.clear()


@pytest.mark.parametrize("action", ["explode", "errno:ENOTHING", "errno:errorcode"])
def test_what_cannot_be_read_is_refused(action: str) -> None:
    with pytest.raises(ValueError, match=action):
        load(f"one={action}")


def test_a_crash_ends_the_process_at_once() -> None:
    script = "from cluster.failpoints import hit\ntry:\n    hit('x')\nfinally:\n    print('cleaned up')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"LXDPY_FAILPOINTS": "x=crash", "PYTHONPATH": "."},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == -9
    assert done.stdout == b""
