"""Where an instance goes whose member is emptied."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from lxdpy.daemon.beat import Beat
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.instances.model import Move
from lxdpy.resources.migration import relocate
from tests.lxdpy.resources.gpus.scene import OTHER, add, gpu, second_member
from tests.lxdpy.resources.instances.scene import house, instance, ready_store

THIRD = "cccccccccccc"


def test_what_does_not_run_goes_where_its_gpus_may_be_had_one_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Beat, "online", lambda *_: True)
    store = ready_store()
    second_member(store)
    second_member(store, "n3", THIRD)
    add(store, gpu("GPU-a", THIRD))
    rows = [instance(store, "c1", location=THIRD), instance(store, "c2", config={"limits.gpu": "1"})]

    async def to(number: int) -> str:
        async with asyncio.TaskGroup() as tasks:
            draft = Move("op", "", "default")
            return relocate._placed(house(tmp_path, store, tasks), rows[number], draft, "").to

    row = store.state.get(GPUS, "GPU-a")
    assert asyncio.run(to(1)) == THIRD, "though more are there"
    store.put(GPUS, "GPU-a", msgspec.structs.replace(row, health="failed"))
    assert asyncio.run(to(1)) == THIRD, "it may recover"
    store.put(GPUS, "GPU-a", msgspec.structs.replace(row, member=OTHER, vendor="amd"))
    assert asyncio.run(to(1)) == OTHER
