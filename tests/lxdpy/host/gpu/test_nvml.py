"""NVML through a library that answers like nvidia-ml-py does, from a table."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import Invalid
from cluster.scheduler import types as scheduler
from lxdpy.host.gpu import nvml, probe
from lxdpy.host.gpu.facts import LINKS, Facts, Mig
from lxdpy.host.gpu.figures import Figures
from lxdpy.host.gpu.health import judged
from lxdpy.host.paths import HostRoot
from tests.lxdpy.host.gpu.trees import make, mixed


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class Library:
    """Two A100 joined by NVLink; what `broken` names raises its error code."""

    NVMLError = NvmlError
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, **broken: int) -> None:
        self._broken = broken
        self.open = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if name in self._broken:
                raise NvmlError(self._broken[name])
            if name not in ANSWERS:
                raise NvmlError(13)
            return ANSWERS[name](*arguments)

        return call

    def nvmlInit(self) -> None:
        if "nvmlInit" in self._broken:
            raise NvmlError(self._broken["nvmlInit"])
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1


def _bus(handle: int) -> str:
    return f"0000000{0}:0{handle + 7}:00.0"


ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetCount": lambda: 2,
    "nvmlDeviceGetHandleByIndex": lambda index: index,
    "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=_bus(handle).encode()),
    "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
    "nvmlDeviceGetName": lambda handle: (
        b"NVIDIA A100-SXM4-40GB" if isinstance(handle, int) else "A100 MIG 1g.5gb"
    ),
    "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=40 * 2**30, used=2**30),
    "nvmlDeviceGetTemperature": lambda handle, sensor: 41,
    "nvmlDeviceGetPowerUsage": lambda handle: 70_500,
    "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 9_000,
    "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=25),
    "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 0),
    "nvmlSystemGetCudaDriverVersion": lambda: 12040,
    "nvmlDeviceGetBrand": lambda handle: 2,
    "nvmlDeviceGetMigMode": lambda handle: (int(handle == 1), 0),
    "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 2,
    "nvmlDeviceGetMigDeviceHandleByIndex": lambda handle, index: f"1g.5gb/{index}",
    "nvmlDeviceGetGpuInstanceId": lambda part: 7 + int(part[-1]),
    "nvmlDeviceGetComputeInstanceId": lambda part: 0,
    "nvmlDeviceGetTopologyCommonAncestor": lambda one, other: 50,
    "nvmlDeviceGetNvLinkState": lambda handle, link: int(link == 0),
    "nvmlDeviceGetNvLinkRemotePciInfo": lambda handle, link: SimpleNamespace(busId=_bus(1 - handle)),
    "nvmlDeviceGetRemappedRows": lambda handle: (0, 0, 0, 0),
}


def test_all_facts_are_read() -> None:
    library = Library()
    found = nvml.read(library)
    assert found == {
        "0000:07:00.0": Facts(
            uuid="GPU-0",
            model="NVIDIA A100-SXM4-40GB",
            memory=40 * 2**30,
            architecture="8.0",
            brand="Tesla",
            cuda_version="12.4",
            figures=Figures(busy=0.25, memory_used=2**30, temperature=41.0, power=70.5, energy=9.0),
            links={"GPU-1": "nvlink"},
        ),
        "0000:08:00.0": Facts(
            uuid="GPU-1",
            model="NVIDIA A100-SXM4-40GB",
            memory=40 * 2**30,
            architecture="8.0",
            brand="Tesla",
            cuda_version="12.4",
            figures=Figures(busy=0.25, memory_used=2**30, temperature=41.0, power=70.5, energy=9.0),
            cut=True,
            mig=tuple(
                Mig(uuid=f"GPU-1g.5gb/{n}", profile="1g.5gb", gi=7 + n, memory=40 * 2**30) for n in range(2)
            ),
            links={"GPU-0": "nvlink"},
        ),
    }
    assert library.open == 0


def test_a_card_that_answers_little_is_still_known() -> None:
    kept = ("PciInfo", "Handle", "Count", "UUID")
    asked = [name for name in ANSWERS if name.startswith("nvmlDeviceGet")]
    missing = [name for name in asked if not any(part in name for part in kept)]
    assert nvml.read(Library(**dict.fromkeys(missing, 3)))["0000:07:00.0"] == Facts(
        uuid="GPU-0", cuda_version="12.4"
    )


def test_a_card_off_the_bus_has_failed() -> None:
    found = nvml.read(Library(nvmlDeviceGetMemoryInfo=15))
    assert {judged(facts.signs).health for facts in found.values()} == {"failed"}


@pytest.mark.parametrize(
    ("rows", "health"), [((1, 1, 0, 0), "ok"), ((0, 1, 1, 0), "suspect"), ((0, 1, 1, 1), "failed")]
)
def test_remapped_rows_tell_of_health(
    rows: tuple[int, ...], health: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANSWERS, "nvmlDeviceGetRemappedRows", lambda handle: rows)
    assert judged(nvml.read(Library())["0000:07:00.0"].signs).health == health


def test_pcie_neighbours_are_linked_when_nvlink_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "nvmlDeviceGetTopologyCommonAncestor", lambda one, other: 10)
    found = nvml.read(Library(nvmlDeviceGetNvLinkState=3))
    assert found["0000:07:00.0"].links == {"GPU-1": "pix"}


def test_without_the_library_there_are_no_facts() -> None:
    assert nvml.read(Library(nvmlInit=12)) == {}


def test_a_lost_card_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_is_lost(index: int) -> int:
        if index == 0:
            raise NvmlError(15)
        return index

    monkeypatch.setitem(ANSWERS, "nvmlDeviceGetHandleByIndex", first_is_lost)
    assert list(nvml.read(Library())) == ["0000:08:00.0"]


def test_every_kind_of_link_is_one_the_scheduler_weighs() -> None:
    assert set(LINKS) == set(scheduler.LINKS)
    assert set(nvml.ANCESTORS.values()) < set(LINKS)


def test_nvml_is_not_asked_without_the_driver_or_about_another_root(tmp_path: Path) -> None:
    assert nvml.facts(HostRoot(tmp_path, tmp_path, tmp_path)) == {}
    assert probe.facts(make(tmp_path, mixed())) == {}


def test_the_installed_binding_is_one_we_can_talk_to(tmp_path: Path) -> None:
    """Without libnvidia-ml.so.1 the real module says so, and that is not an error."""
    (tmp_path / "driver/nvidia").mkdir(parents=True)
    assert isinstance(nvml.facts(HostRoot(tmp_path, tmp_path, tmp_path)), dict)


def test_recorded_facts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, {f"proc/{probe.RECORDED}": '{"0000:07:00.0": {"memory": "much"}}'})
    with pytest.raises(Invalid, match="gpu-facts"):
        probe.facts(root)
