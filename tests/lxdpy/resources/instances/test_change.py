"""What becomes of an instance that does not run when it is changed."""

import asyncio
from pathlib import Path

import msgspec

from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances import change
from lxdpy.resources.instances.model import INSTANCES, Instance
from tests.lxdpy.resources.gpus.scene import add, created, gpu
from tests.lxdpy.resources.instances.scene import ROOT, house, ready_store


def test_what_its_create_was_granted_stays_its_own(tmp_path: Path) -> None:
    store = ready_store()
    add(store, gpu("GPU-a"))
    key = created(store, "c1", "GPU-a")
    row = msgspec.structs.replace(store.state.get(INSTANCES, key), devices={"root": ROOT}, pool="default")
    store.put(INSTANCES, key, row)

    def edit(row: Instance) -> Instance:
        return msgspec.structs.replace(row, config={**row.config, "cloud-init.user-data": "#cloud-config"})

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            await change.apply(house(tmp_path, store, tasks), key, edit)

    asyncio.run(main())
    now = store.state.get(INSTANCES, key)
    assert now.config["volatile.cloud-init.instance-id"], "it is another one for cloud-init"
    assert granted(now.config) == {"gpu": ("GPU-a",)}
    assert [holder.instance for holder in store.state.get(GPUS, "GPU-a").holders] == [key]
