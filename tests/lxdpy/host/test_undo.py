import asyncio

import pytest

from lxdpy.host.undo import Undo


def steps_of(*, fail: bool, forget: bool = False, broken: bool = False) -> list[str]:
    done: list[str] = []

    async def later(word: str) -> None:
        await asyncio.sleep(0)
        done.append(word)

    async def scenario() -> None:
        async with Undo() as undo:
            undo.push(done.append, "first")
            if broken:
                undo.push(int, "not a number")
            undo.push(later, "second")
            if forget:
                undo.forget()
            if fail:
                raise ZeroDivisionError

    if fail:
        with pytest.raises(ZeroDivisionError):
            asyncio.run(scenario())
    else:
        asyncio.run(scenario())
    return done


def test_a_block_that_ends_well_takes_nothing_back() -> None:
    assert steps_of(fail=False) == []


def test_steps_are_taken_back_newest_first() -> None:
    assert steps_of(fail=True) == ["second", "first"]


def test_a_step_that_fails_does_not_keep_the_others_from_running() -> None:
    assert steps_of(fail=True, broken=True) == ["second", "first"]


def test_forgotten_steps_stay_done() -> None:
    assert steps_of(fail=True, forget=True) == []


def test_a_cancelled_block_is_taken_back_too() -> None:
    done: list[str] = []

    async def scenario() -> None:
        async with Undo() as undo:
            undo.push(done.append, "undone")
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())
    assert done == ["undone"]


def test_a_step_that_fails_is_told_without_what_it_was_to_work_on(caplog: pytest.LogCaptureFixture) -> None:
    steps_of(fail=True, broken=True)
    assert caplog.messages == ["undo failed: int"]
