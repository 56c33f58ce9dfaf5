import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from lxdpy.daemon.job_map import JobMap
from lxdpy.resources.gpus.model import GPUS, Holder
from lxdpy.resources.server.commands import ConfigureServer
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER, add, gpu


def test_the_files_follow_the_ledger_and_go_with_the_setting(tmp_path: Path) -> None:
    store = LocalStore()
    hold = Holder("default/c1", "gpu", "shared", 1.0), Holder("lab/c2", "gpu", "shared", 1.0)
    add(
        store,
        gpu("GPU-b", MEMBER_ID, "0000:09:00.0"),
        gpu("GPU-a", MEMBER_ID, "0000:07:00.0", *hold),
        gpu("GPU-c", OTHER, "0000:01:00.0"),
        msgspec.structs.replace(gpu("amd", MEMBER_ID, "0000:02:00.0"), vendor="amd"),
    )
    folder = tmp_path / "jobs"
    jobs = JobMap(cast(Any, Daemon(store)))

    def found() -> dict[str, str]:
        asyncio.run(jobs.step())
        return {path.name: path.read_text() for path in folder.iterdir()} if folder.is_dir() else {}

    assert found() == {}
    store.run(ConfigureServer({"gpu.job_mapping": str(folder)}))
    assert found() == {"0": "c1\nlab/c2\n", "1": ""}
    store.put(GPUS, "GPU-b", None)
    store.put(GPUS, "GPU-a", gpu("GPU-a", MEMBER_ID, "0000:07:00.0"))
    assert found() == {"0": ""}
    store.run(ConfigureServer({"gpu.job_mapping": ""}))
    assert found() == {}


class Daemon(SimpleNamespace):
    def __init__(self, store: LocalStore) -> None:
        super().__init__(member_id=MEMBER_ID)
        self.store = store

    @property
    def state(self) -> Any:
        return self.store.state
