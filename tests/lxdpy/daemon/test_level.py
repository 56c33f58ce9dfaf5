"""Level-triggered work: whoever waits for a key learns at once that a try has failed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster.errors import Invalid
from lxdpy.daemon.level import Level
from tests.patience import WITHIN

LONG = 3600.0  # seconds: no retry happens by itself


def play(story: Callable[[Level], Awaitable[None]], work: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
            await story(Level(tasks, work, "thing", retry_after=LONG))
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    asyncio.run(run())


def test_nobody_waits_for_the_next_try_of_what_failed() -> None:
    async def work(key: str) -> None:
        raise Invalid("no")

    async def story(level: Level) -> None:
        level.poke("a")
        await level.settled("a")

    play(story, work)


def test_a_try_that_is_under_way_is_waited_for() -> None:
    tries: list[str] = []

    async def work(key: str) -> None:
        await asyncio.sleep(0)
        tries.append(key)
        if len(tries) == 1:
            raise Invalid("no")

    async def story(level: Level) -> None:
        level.poke("a")
        await level.settled("a")
        assert tries == ["a"]
        level.poke("a")  # at once, and not after the pause
        await level.settled("a")
        assert tries == ["a", "a"]

    play(story, work)


def test_a_key_that_nobody_poked_is_settled() -> None:
    async def work(key: str) -> None:
        raise AssertionError(key)

    async def story(level: Level) -> None:
        await level.settled("a")

    play(story, work)


def test_a_key_is_worked_on_by_one_at_a_time_and_again_if_it_was_poked_meanwhile() -> None:
    seen: list[str] = []
    busy: set[str] = set()

    async def work(key: str) -> None:
        assert key not in busy
        busy.add(key)
        seen.append(key)
        await asyncio.sleep(0)
        busy.discard(key)

    async def story(level: Level) -> None:
        for key in "aab":
            level.poke(key)
        await asyncio.sleep(0)
        level.poke("a")
        level.poke("a")
        for key in "ab":
            await level.settled(key)
        assert (seen.count("a"), seen.count("b")) == (2, 1)

    play(story, work)


def test_what_failed_is_tried_again_by_itself_and_a_lasting_failure_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reasons = ["one", "one", "two", ""]

    async def main() -> None:
        left = list(reasons)

        async def work(key: str) -> None:
            if why := left.pop(0):
                raise Invalid(why)

        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
            Level(tasks, work, "thing", retry_after=0.0).poke("a")
        assert left == []

    asyncio.run(main())
    assert [record.message for record in caplog.records] == ["thing a: one", "thing a: two"]


def test_a_poke_ends_the_wait_for_the_next_try_and_a_bug_is_no_end() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)
        if len(seen) == 1:
            raise ZeroDivisionError

    async def story(level: Level) -> None:
        level.poke("a")
        await level.settled("a")
        level.poke("a")
        await level.settled("a")
        assert seen == ["a", "a"]

    play(story, work)
