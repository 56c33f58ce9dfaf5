import asyncio
from pathlib import Path

import pytest

from cluster.errors import Invalid
from lxdpy.resources.instances.rename import check_rename
from lxdpy.resources.projects.commands import CreateProject
from lxdpy.resources.projects.model import Project
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume
from tests.lxdpy.fakes import MEMBER_ID
from tests.lxdpy.resources.instances.scene import ROOT, house, instance, ready_store


def test_an_instance_goes_to_no_project_that_has_not_its_volume(tmp_path: Path) -> None:
    store = ready_store()
    for name, own in (("own", "true"), ("guest", "false")):
        store.run(CreateProject(Project(name, config={"features.storage.volumes": own})))
    store.put(VOLUMES, "v", StorageVolume("v", "default", "default", "v1", MEMBER_ID, status="Ready"))
    disk = {"type": "disk", "pool": "default", "source": "v1", "path": "/v"}
    row = instance(store, "c1", profiles=(), devices={"root": ROOT, "d": disk})

    async def story() -> None:
        async with asyncio.TaskGroup() as tasks:
            daemon = house(tmp_path, store, tasks)
            check_rename(daemon, row, "c1", "guest")
            with pytest.raises(Invalid, match="Storage volume not found"):
                check_rename(daemon, row, "c1", "own")

    asyncio.run(story())
