"""Changes of state, of one instance and of all."""

import asyncio
from pathlib import Path

import msgspec

from cluster.errors import Invalid
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, waiting_for
from lxdpy.resources.gpu_queue.turns import Turns
from lxdpy.resources.instances.state import routes
from lxdpy.resources.operations.handlers import routes as operations
from lxdpy.resources.operations.operation import Operation
from tests.lxdpy.fakes import MEMBER_ID, Local, serving
from tests.lxdpy.resources.gpus.scene import add, gpu
from tests.lxdpy.resources.instances.scene import house, instance, ready_store, with_client


def test_of_all_each_that_could_not_is_named_also_where_no_member_has_an_address(tmp_path: Path) -> None:
    store = ready_store()
    for name, status in (("c1", "Running"), ("c2", "Running"), ("c3", "Stopped")):
        instance(store, name, status)  # type: ignore[arg-type]

    async def check(client: Local) -> None:
        body = {"state": {"action": "freeze", "timeout": 5}}
        begun = (await client.ask("PUT", "/1.0/instances", body))["metadata"]
        ended = (await client.ask("GET", f"/1.0/operations/{begun['id']}/wait"))["metadata"]
        assert (ended["status"], ended["err"].splitlines()) == ("Failure", [
            "The following instances failed to update state:",
            " - Instance: c1: The container isn't running",
            " - Instance: c2: The container isn't running",
        ])  # fmt: skip

    with_client(tmp_path, store, check, routes, operations)


def test_of_all_those_are_waited_for_too_whose_start_the_queue_has_granted(tmp_path: Path) -> None:
    store = ready_store()
    add(store, gpu("GPU-a"))
    key = instance(store, "c1", config={"limits.gpu": "1", "gpu.wait": "-1"}).key

    async def no_disk(_: Operation) -> None:
        await asyncio.sleep(0.05)
        raise Invalid("No disk")

    async def main() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            daemon.operations.queued = Turns(daemon)
            async with serving(daemon, routes, operations) as client:
                answer = await client.ask("PUT", "/1.0/instances", {"state": {"action": "start"}})
                await daemon.until(lambda state: waiting_for(state, key) is not None, None)
                [turn] = store.state.rows(GPU_QUEUE).values()
                granted = msgspec.structs.replace(turn, status="granted", location=MEMBER_ID)
                store.put(GPU_QUEUE, turn.id, granted)
                daemon.operations.start("Starting instance", {}, no_disk, id=turn.id)
                wait = f"/1.0/operations/{answer['metadata']['id']}/wait"
                ended = (await client.ask("GET", wait))["metadata"]
                assert (ended["status"], ended["err"].splitlines()[1:]) == (
                    "Failure",
                    [" - Instance: c1: No disk"],
                )

    asyncio.run(main())
