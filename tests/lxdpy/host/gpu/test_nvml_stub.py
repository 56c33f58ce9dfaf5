"""The real binding, nvidia-ml-py, on the library that is built for made-up cards."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lxdpy.host.gpu import fake_nvml, nvml, probe
from lxdpy.host.gpu.facts import Facts, Process
from lxdpy.host.gpu.fake import FakeGpus
from lxdpy.host.gpu.inventory import discover
from lxdpy.host.gpu.resources import resources
from lxdpy.host.gpu.xids import XidListener
from tests.lxdpy.host.gpu.trees import link_to_null

GIB = 2**30
CARDS = """
gpus:
- {profile: dgx-a100}
- {vendor: nvidia, uuid: GPU-cut, mig: [1g.5gb, 2g.10gb], pci: "0000:c1:00.0"}
- {vendor: amd, pci: "0000:c2:00.0"}
"""


class Host:
    def __init__(self, folder: Path, *, nvml: bool = True) -> None:
        self.file = folder / "gpus.yaml"
        self.nvml = nvml
        self.fake = FakeGpus(self.file, folder / "fake", "n1", link_to_null)
        self.edits = 0
        self.say("")

    def say(self, faults: str) -> None:
        """Other faults than before, seen at once, however coarse the file system's clock."""
        self.edits += 1
        self.file.write_text(f"{CARDS}nvml: {str(self.nvml).lower()}\n{faults}")
        for path in (self.file, self.fake.root.proc / probe.LIBRARY.replace("libnvidia-ml.so.1", "cards")):
            if path.exists():
                os.utime(path, ns=(self.edits * 10**9, self.edits * 10**9))
            self.fake.refresh()

    def facts(self) -> dict[str, Facts]:
        return probe.facts(self.fake.root)

    def library(self) -> Any:
        return nvml.binding(self.fake.root.proc / probe.LIBRARY)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = fake_nvml.build(tmp_path_factory.mktemp("nvml"))
    assert built, "these tests need a C compiler"
    return built


@pytest.fixture
def host(tmp_path: Path, library: Path) -> Host:
    (tmp_path / "fake").mkdir()
    shutil.copy(library, tmp_path / "fake")  # where it would be built
    return Host(tmp_path)


def test_it_answers_as_the_file_would(host: Host, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = Host(tmp_path / "plain", nvml=False).facts()
    answered = host.facts()
    for address, told in plain.items():
        has = answered[address]
        assert (has.memory, has.architecture, has.cuda_version, has.mig, has.signs) == (
            told.memory, told.architecture, told.cuda_version, told.mig, told.signs,
        )  # fmt: skip
        assert sorted(has.links) == sorted(told.links)


def test_the_inventory_is_the_same_with_and_without_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = Host(tmp_path / "plain", nvml=False)

    def known(root: Any) -> list[Any]:
        return [
            msgspec.structs.replace(
                gpu,
                nodes=(),
                links=dict(sorted(gpu.links.items())),
                figures=msgspec.structs.replace(gpu.figures, energy=None, memory_used=None),
            )
            for gpu in discover(root, "n1")
        ]

    assert known(host.fake.root) == known(plain.fake.root)
    assert resources(host.fake.root)["cards"][0]["nvidia"]["brand"] == "Tesla"


def test_faults_are_seen_while_it_runs(host: Host) -> None:
    def health() -> dict[str, str]:
        return {
            gpu.pci_address[5:7]: gpu.health for gpu in discover(host.fake.root, "n1") if gpu.health != "ok"
        }

    assert health() == {}
    faults = "0: {lost: true}, 1: {ecc: 2}, 2: {remapped: pending}, 3: {remapped: failed}, 4: {busy: 0.5}"
    host.say(f"faults: {{{faults}}}")
    assert health() == {"07": "failed", "0f": "failed", "47": "suspect", "4e": "failed"}
    assert host.facts()["0000:07:00.0"] == Facts(signs=msgspec.structs.replace(Facts().signs, lost=True))
    assert host.facts()["0000:87:00.0"].figures.busy == 0.5
    host.say("faults: {5: {processes: [{pid: 1, memory: 2GiB}]}}")
    assert health() == {}
    assert host.facts()["0000:90:00.0"].processes == (Process(1, 2 * GIB),)


def test_an_xid_is_an_event_once(host: Host) -> None:
    library = host.library()
    library.nvmlInit()
    events = library.nvmlEventSetCreate()
    try:
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            library.nvmlDeviceRegisterEvents(handle, library.nvmlEventTypeXidCriticalError, events)
        host.say("faults: {GPU-cut: {xid: 79}}")
        event = library.nvmlEventSetWait_v2(events, 100)
        assert (library.nvmlDeviceGetUUID(event.device), event.eventData) == ("GPU-cut", 79)
        with pytest.raises(library.NVMLError) as timeout:
            library.nvmlEventSetWait_v2(events, 1)
        assert timeout.value.value == library.NVML_ERROR_TIMEOUT
    finally:
        library.nvmlEventSetFree(events)
        library.nvmlShutdown()


def heard(listener: XidListener) -> list[tuple[str, int]]:
    deadline = time.monotonic() + 10
    while not listener.pending() and time.monotonic() < deadline:
        time.sleep(0.01)
    return listener.drain()


def test_faults_are_heard_by_address_also_of_cards_that_are_lost_by_them(host: Host) -> None:
    listener = XidListener(host.fake.root)
    listener.start()
    try:
        host.say("faults: {GPU-cut: {xid: 31}}")
        assert heard(listener) == [("0000:c1:00.0", 31)]
        host.say("faults: {GPU-cut: {xid: 79, lost: true}}")
        assert heard(listener) == [("0000:c1:00.0", 79)]
        assert listener.drain() == []
    finally:
        listener.stop()


def test_mig_devices_answer_as_parts_of_their_card(host: Host) -> None:
    library = host.library()
    library.nvmlInit()
    try:
        card = library.nvmlDeviceGetHandleByUUID("GPU-cut")
        part = library.nvmlDeviceGetMigDeviceHandleByIndex(card, 1)
        assert library.nvmlDeviceIsMigDeviceHandle(part).value == 1
        assert library.nvmlDeviceGetName(part) == "NVIDIA A100-SXM4-40GB MIG 2g.10gb"
        assert library.nvmlDeviceGetAttributes(part).memorySizeMB == 10 * 1024
        assert (
            library.nvmlDeviceGetUUID(library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)) == "GPU-cut"
        )
        for question, *asked in (
            (library.nvmlDeviceGetMigDeviceHandleByIndex, card, 2),
            (library.nvmlDeviceGetUtilizationRates, card),
            (library.nvmlDeviceGetMinorNumber, part),
        ):
            with pytest.raises(library.NVMLError):
                question(*asked)
    finally:
        library.nvmlShutdown()


def test_without_a_compiler_the_file_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    host = Host(tmp_path)
    assert not (host.fake.root.proc / probe.LIBRARY).exists()
    assert len(host.facts()) == 10
    assert "no C compiler" in caplog.text
