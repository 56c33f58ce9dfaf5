from types import SimpleNamespace
from typing import Any, cast

import msgspec

from lxdpy.host.gpu.figures import Figures
from lxdpy.host.gpu.health import Signs
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.resources.gpus.metrics import measure
from lxdpy.resources.metrics.families import Families, text_of
from lxdpy.resources.projects.commands import CreateProject
from lxdpy.resources.projects.model import Project
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER, add, created, gpu

SEEN = Gpu(
    uuid="GPU-1", vendor="nvidia", model="", memory=1, driver="", driver_version="", pci_address="",
    vendor_id="", product_id="", signs=Signs(ecc=3),
    figures=Figures(busy=0.5, memory_used=7, temperature=60.0),
)  # fmt: skip


def lines(*, leads: bool = True) -> list[str]:
    store = LocalStore()
    add(store, gpu("GPU-1"), gpu("GPU-2"), gpu("GPU-3", OTHER))
    add(store, msgspec.structs.replace(gpu("MIG-1"), parent="GPU-2", health="failed"))
    created(store, "c1", "GPU-1", status="Running", started=True)
    created(store, "c2", "MIG-1", status="Running", started=True)
    store.run(CreateProject(Project("lab", config={"limits.gpu": "4"})))
    told = SimpleNamespace(state=store.state, is_leader=leads)
    daemon = SimpleNamespace(
        state=store.state, store=told, member_id=MEMBER_ID, gpus=SimpleNamespace(cards=(SEEN,))
    )
    families = Families()
    measure(cast(Any, daemon), families)
    text = text_of(families.metrics()).decode().splitlines()
    return [line for line in text if not line.startswith("#")]


def test_a_member_tells_of_its_own_cards() -> None:
    found = lines()
    for line in (
        'lxd_gpu_allocated{mode="exclusive",name="c1",project="default",uuid="GPU-1"} 1.0',
        'lxd_gpu_allocated{mode="mig",name="c2",project="default",uuid="MIG-1"} 1.0',
        'lxd_gpu_utilization_ratio{uuid="GPU-1"} 0.5',
        'lxd_gpu_memory_used_bytes{uuid="GPU-1"} 7.0',
        'lxd_gpu_temperature_celsius{uuid="GPU-1"} 60.0',
        'lxd_gpu_ecc_errors_total{uuid="GPU-1"} 3.0',
        'lxd_gpu_health{state="failed",uuid="MIG-1"} 1.0',
        'lxd_gpu_health{state="ok",uuid="MIG-1"} 0.0',
    ):
        assert line in found
    assert not [line for line in found if "GPU-3" in line], "that is another member's"
    assert not [line for line in found if line.startswith("lxd_gpu_power_watts")], "it is not known"


def test_the_leader_alone_tells_of_projects() -> None:
    found = lines()
    assert 'lxd_project_gpu_usage{project="default"} 2.0' in found
    assert 'lxd_project_gpu_limit{project="lab"} 4.0' in found
    assert any(line.startswith('lxd_gpu_seconds_total{mode="exclusive",project="default"}') for line in found)
    assert not [line for line in lines(leads=False) if "project_gpu" in line or "seconds" in line]
