"""Waiting for a state: what one waiter makes of it is nothing to the others. Work that goes on by itself."""

import asyncio
import inspect
from pathlib import Path

import pytest

from cluster.errors import NotFound
from cluster.state.txn import State
from lxdpy.resources.profiles.model import PROFILES, Profile
from tests.lxdpy.fakes import LocalStore, local_daemon


def test_a_check_that_fails_ends_its_own_wait_only(tmp_path: Path) -> None:
    async def story() -> None:
        store = LocalStore()
        daemon = local_daemon(tmp_path, store)
        own, own_is_known = Profile("default", "p1"), False

        def knows(state: State) -> bool:
            nonlocal own_is_known
            own_is_known = state.get(PROFILES, own.key) is not None
            return False

        store.put(PROFILES, own.key, own)
        waiting = asyncio.create_task(daemon.until(knows, 20))
        later = asyncio.create_task(daemon.until(lambda state: not state.rows(PROFILES), 20))
        await asyncio.sleep(0)
        assert own_is_known
        store.put(PROFILES, own.key, None)
        await later
        with pytest.raises(NotFound):
            await waiting

    asyncio.run(story())


def test_work_that_has_not_begun_when_all_ends_is_put_away(tmp_path: Path) -> None:
    """Else it is complained of wherever the garbage is collected next."""
    work = asyncio.sleep(0)

    async def story() -> None:
        async with asyncio.TaskGroup() as tasks:
            local_daemon(tmp_path, tasks=tasks).spawn(work, "work")
            raise KeyError

    with pytest.raises(ExceptionGroup):
        asyncio.run(story())
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED
