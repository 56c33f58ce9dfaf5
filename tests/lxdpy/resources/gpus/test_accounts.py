import asyncio
from pathlib import Path
from typing import Any

import msgspec

from lxdpy.resources.gpus.accounts import projects, routes
from lxdpy.resources.gpus.model import GPUS
from lxdpy.resources.gpus.usage import USAGE, Usage, used
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.rest.auth import Identity
from lxdpy.rest.route import Call
from tests.lxdpy.fakes import LocalStore, local_daemon, serving
from tests.lxdpy.resources.gpus.scene import add, created, gpu


def scene() -> LocalStore:
    store = LocalStore()
    add(store, gpu("GPU-1"), gpu("MIG-1"))
    store.put(GPUS, "MIG-1", msgspec.structs.replace(store.state.get(GPUS, "MIG-1"), parent="GPU-0"))
    created(store, "c1", "GPU-1", status="Running", started=True)
    created(store, "c2", "MIG-1", status="Running", started=True)
    store.put(USAGE, "default/c1", Usage(exclusive=3600.0, shared=60.0, until=5.0))
    store.put(USAGE, "lab/gone", Usage(exclusive=10.0, until=7.0))
    store.put(PROJECTS, "lab", Project("lab", config={"limits.gpu": "4"}))
    return store


def test_holds_that_go_on_are_counted_until_now() -> None:
    store = scene()
    found = used(store.state, store.now + 100)
    assert found["default/c1"] == Usage(exclusive=3700.0, shared=60.0, until=store.now + 100)
    assert found["default/c2"].mig == 100.0
    assert found["lab/gone"].until == 7.0
    assert used(store.state, store.now - 5)["default/c2"].mig == 0.0, (
        "a clock that is behind takes nothing away"
    )


def test_usage_is_told_by_project_and_instance(tmp_path: Path) -> None:
    store = scene()

    async def ask() -> dict[str, Any]:
        async with serving(local_daemon(tmp_path, store), routes) as client:
            return await client.ask("GET", "/1.0/gpu-usage?filter=project%20eq%20lab")

    found = asyncio.run(ask())["metadata"]
    assert found["index"] == store.state.index
    assert found["instances"] == [
        {
            "project": "lab", "instance": "gone", "held": 0, "until": "1970-01-01T00:00:07Z",
            "exclusive_seconds": 10.0, "shared_seconds": 0.0, "mig_seconds": 0.0,
        }
    ]  # fmt: skip
    told = {row["name"]: (row["held"], row["limit"]) for row in found["projects"]}
    assert told == {"default": (2, -1), "lab": (0, 4)}


def test_who_is_confined_to_projects_sees_no_others() -> None:
    call: Any = object.__new__(Call)
    call.identity = Identity("tls", "abc", projects=("lab",))
    call.state = scene().state
    assert [row["name"] for row in projects(call, {}, {})] == ["lab"]
