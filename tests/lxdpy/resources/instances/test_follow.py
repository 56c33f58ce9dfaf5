"""A running container, brought in line with what others do meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from cluster.errors import Conflict
from cluster.state.command import Command
from cluster.state.txn import State
from lxdpy.daemon.context import Daemon
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.gpus.commands import RACED, granted
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances import change
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.commands import StartInstance, UpdateInstance
from lxdpy.resources.instances.expand import expanded
from lxdpy.resources.instances.follow import follow
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import INSTANCES
from tests.lxdpy.fakes import LocalStore
from tests.lxdpy.resources.gpus.scene import add, created, gpu
from tests.lxdpy.resources.instances.scene import ROOT, FakeRuntime, house, ready_store

CARD = {"type": "gpu", "count": "1"}


class Busy(LocalStore):
    """Where another is faster, so many times."""

    left = 0

    async def propose(self, command: Command, *, request_id: str = "", timeout: float = 10.0) -> State:
        if isinstance(command, StartInstance | UpdateInstance) and self.left:
            self.left -= 1
            raise Conflict("GPU GPU-2 on n1 is held by other", **{RACED: "gpu"})
        return await super().propose(command, request_id=request_id, timeout=timeout)


def when_it_runs(root: Path, story: Callable[[Daemon, Busy, str], Awaitable[None]]) -> None:
    """An instance with a card; its config does not have it, or any more."""

    async def main() -> None:
        (root / "run").mkdir()
        store = Busy()
        store.machine.state = ready_store().state
        add(store, gpu("GPU-1"))
        key = created(store, "c1", "GPU-1", status="Running", started=True)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(root, store, tasks)
            cast(FakeRuntime, daemon.runtime).states["c1"] = ContainerState("Running", 7)
            row = msgspec.structs.replace(store.state.get(INSTANCES, key), devices={"root": ROOT})
            store.put(INSTANCES, key, row)
            config, devices = expanded(store.state, row)
            had = (config, devices | {"gpu": CARD})
            await records.save(daemon, row, Given(had, had, init=7))
            await story(daemon, store, key)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["follow", "change"])
def test_who_was_slower_at_a_gpu_tries_again(tmp_path: Path, how: str) -> None:
    async def story(daemon: Daemon, store: Busy, key: str) -> None:
        row = store.state.get(INSTANCES, key)
        store.left = 2
        if how == "follow":
            given = await records.load(daemon, row)
            assert given is not None
            await follow(daemon, row, given)
        else:
            await change.apply(daemon, key, lambda now: msgspec.structs.replace(now, description="new"))
        assert (store.left, store.state.get(GPUS, "GPU-1").holders) == (0, ())
        assert granted(store.state.get(INSTANCES, key).config) == {}

    when_it_runs(tmp_path, story)


def test_who_is_slower_each_time_is_told(tmp_path: Path) -> None:
    async def story(daemon: Daemon, store: Busy, key: str) -> None:
        store.left = 100
        with pytest.raises(Conflict):
            await change.apply(daemon, key, lambda now: msgspec.structs.replace(now, description="new"))
        assert store.left == 100 - change.TRIES

    when_it_runs(tmp_path, story)
