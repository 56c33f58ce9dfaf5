"""What an owner does with what the queue has granted."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from cluster.errors import Unavailable
from cluster.state.command import Command
from cluster.state.txn import State
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.gpu_queue import actions
from lxdpy.resources.gpu_queue.commands import FinishTurn
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn
from lxdpy.resources.operations.model import SUCCESS
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.instances.scene import FakeRuntime, house, instance, ready_store

ID = f"00000000-0000-4000-8000-{MEMBER_ID}"


class Leaderless(LocalStore):
    """For so many tries nobody can be told that a turn is over."""

    left = 3

    async def propose(self, command: Command, *, request_id: str = "", timeout: float = 10.0) -> State:
        if isinstance(command, FinishTurn) and self.left:
            self.left -= 1
            raise Unavailable("No leader")
        return await super().propose(command, request_id=request_id, timeout=timeout)


def test_who_was_started_meanwhile_was_started(tmp_path: Path) -> None:
    async def check() -> None:
        store = ready_store()
        row = instance(store, "c1")
        turn = Turn(ID, "default", "granted", start=row.key, location=MEMBER_ID)
        store.put(GPU_QUEUE, ID, turn)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            async with daemon.lock(f"instance {row.key}"):  # by whom it is started
                actions.carry_out(daemon, turn)
                operation = await daemon.operations.get(ID)
                await asyncio.sleep(0)
                cast(FakeRuntime, daemon.runtime).states["c1"] = ContainerState("Running", 7)
            await operation.wait()
        assert (operation.status_code, operation.err) == (SUCCESS, "")
        assert store.state.get(GPU_QUEUE, ID).err == ""

    asyncio.run(check())


def test_that_a_turn_was_carried_out_is_told_as_soon_as_there_is_a_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "TELL_AGAIN", 0.0)

    async def check() -> None:
        store = Leaderless()
        store.machine.state = ready_store().state
        row = instance(store, "c1", "Running")
        turn = Turn(ID, "default", "granted", start=row.key, location=MEMBER_ID)
        store.put(GPU_QUEUE, ID, turn)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            cast(FakeRuntime, daemon.runtime).states["c1"] = ContainerState("Running", 7)
            actions.carry_out(daemon, turn)
            operation = await daemon.operations.get(ID)
            await operation.wait()
        assert (operation.status_code, operation.err) == (SUCCESS, "")
        assert store.state.get(GPU_QUEUE, ID).status == "done"

    asyncio.run(check())
