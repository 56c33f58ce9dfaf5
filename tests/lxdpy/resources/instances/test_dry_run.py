"""What would become of a create is what becomes of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lxdpy.daemon.beat import Beat
from lxdpy.resources.instances.dry_run import dry_run
from lxdpy.resources.instances.model import InstanceSource, InstancesPost
from lxdpy.resources.projects.model import PROJECTS, Project
from tests.lxdpy.fakes import LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER, add, gpu, second_member
from tests.lxdpy.resources.instances.scene import ROOT, house, instance, ready_store


def told(folder: Path, store: LocalStore, **wish: Any) -> dict[str, Any]:
    body = InstancesPost(
        **{"name": "new", "source": InstanceSource("none"), "devices": {"root": ROOT}, **wish}
    )

    async def main() -> dict[str, Any]:
        async with asyncio.TaskGroup() as tasks:
            return dry_run(house(folder, store, tasks), body, "default", "", lambda _: True)

    return asyncio.run(main())


def limited(**limits: str) -> LocalStore:
    """With two GPUs, and an instance that has none."""
    store = ready_store()
    project = store.state.get(PROJECTS, "default")
    store.put(PROJECTS, "default", Project("default", "", project.config | limits))
    add(store, gpu("GPU-a"), gpu("GPU-b", pci="0000:0f:00.0"))
    instance(store, "c1")
    return store


@pytest.mark.parametrize(
    ("limits", "name", "why"),
    [
        ({"limits.gpu": "2"}, "new", ""),
        ({"limits.gpu": "1"}, "new", "The project holds 0 of the 1 GPUs it may have"),
        ({"limits.instances": "1"}, "new", 'Reached maximum number of instances in project "default"'),
        ({}, "c1", 'Instance "c1" already exists'),
    ],
)
def test_what_the_project_may_not_have_it_would_not_get(
    tmp_path: Path, limits: dict[str, str], name: str, why: str
) -> None:
    found = told(tmp_path, limited(**limits), name=name, devices={"root": ROOT, "all": {"type": "gpu"}})
    assert (found["why_not"], found["member"], found["quota"]["wanted"]) == (why, "" if why else "none", 2)


def test_a_copy_would_be_where_what_it_is_made_of_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Beat, "online", lambda *_: True)
    store = limited()
    second_member(store)
    for name in ("c2", "c3"):
        instance(store, name, location=OTHER)
    assert told(tmp_path, store)["member"] == "none"
    assert told(tmp_path, store, source=InstanceSource("copy", source="c2"))["member"] == "n2"
