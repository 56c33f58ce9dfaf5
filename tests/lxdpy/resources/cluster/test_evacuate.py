"""A member is emptied of all that it has by the time when it takes no more."""

import asyncio
from pathlib import Path
from typing import Any, cast

from cluster.membership.model import MEMBERS
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.cluster import evacuate
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.operations.operation import Operation
from tests.lxdpy.resources.instances.scene import FakeRuntime, house, instance, ready_store


def test_who_came_while_it_was_asked_to_take_no_more_is_stopped_as_well(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "run").mkdir()
        store = ready_store()
        async with asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            runtime = cast(FakeRuntime, daemon.runtime)

            def just_before(applied: Any) -> None:
                if any(change.table == MEMBERS.name for change in applied.changes):
                    runtime.states["late"] = ContainerState("Running", 7)
                    instance(store, "late", "Running", config={"boot.host_shutdown_timeout": "0"})

            store.watch(just_before)
            emptying = Operation("1", "Evacuating cluster member", {}, lambda: "none", {})
            await evacuate.evacuate(daemon, emptying, "stop")
            assert store.state.get(INSTANCES, "default/late").status == "Stopped"

    asyncio.run(story())
