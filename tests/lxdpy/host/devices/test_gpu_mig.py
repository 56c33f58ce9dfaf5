import asyncio
from pathlib import Path

import pytest

from cluster.errors import Invalid
from lxdpy.host.devices.driver import Attachment, Seat
from lxdpy.host.devices.gpu_mig import GpuMig
from lxdpy.host.devices.gpu_options import GpuGone, NoGrant
from lxdpy.host.gpu.fake import FakeGpus
from lxdpy.host.gpu.inventory import discover
from tests.lxdpy.host.gpu.trees import below, link_to_null


def _started(folder: Path, *places: int) -> Attachment:
    """A container with these MIG devices of the second card of two."""
    (folder / "gpus.yaml").write_text("gpus: [{vendor: nvidia, count: 2, mig: [1g.5gb, 2g.10gb, 1g.5gb]}]")
    fake = FakeGpus(folder / "gpus.yaml", folder / "fake", "n1", link_to_null)
    fake.refresh()
    card = discover(fake.root, "n1")[1]
    uuids = tuple(card.mig[place].uuid for place in places)
    seat = Seat(instance="default/c1", name="part", options={"type": "gpu", "gputype": "mig"}, gpus=uuids)
    return asyncio.run(GpuMig(fake.root, "n1").start(seat))


def test_a_container_gets_its_parts_capabilities_and_no_others(tmp_path: Path) -> None:
    found = _started(tmp_path, 1)
    assert [node.path for node in found.nodes] == [
        "/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap39", "/dev/nvidia-caps/nvidia-cap40",
        "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset",
    ]  # fmt: skip
    [visible] = found.environment.values()
    assert visible.startswith("MIG-")


def test_two_parts_of_a_card_bring_its_file_once(tmp_path: Path) -> None:
    paths = [node.path for node in _started(tmp_path, 0, 2).nodes]
    assert len(paths) == len(set(paths)) == 1 + 4 + 4


def test_without_a_grant_or_with_one_of_another_host_nothing_starts(tmp_path: Path) -> None:
    driver = GpuMig(below(tmp_path), "n1")
    for gpus, error in (((), NoGrant), (("MIG-1",), GpuGone)):
        with pytest.raises(error):
            asyncio.run(driver.start(Seat(instance="default/c1", name="part", options={}, gpus=gpus)))


@pytest.mark.parametrize(
    "options",
    [
        {"mig.uuid": "MIG-1234"},
        {"mig.uuid": "GPU-1/7/0", "pci": "07:00.0"},
        {"mig.gi": "7", "mig.ci": "0"},
        {"mig.profile": "1g.5gb"},
        {"mig.profile": "1g.10gb+me", "count": "3", "sharing": "shared"},
        {"count": "1"},
        {"match": "mig.profile=1g.5gb"},
    ],
)
def test_a_mig_device_can_be_named_or_asked_for(options: dict[str, str]) -> None:
    GpuMig(below(Path("/nowhere")), "n1").check({"type": "gpu", "gputype": "mig", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "named by"),
        ({"mig.gi": "7"}, "Both"),
        ({"mig.uuid": "MIG-1234", "mig.ci": "0"}, 'Cannot use "mig.ci" when "mig.uuid" is set'),
        ({"mig.uuid": "MIG-1234", "mig.profile": "1g.5gb"}, "mig.profile"),
        ({"mig.uuid": "MIG-1234", "pci": "07:00.0", "id": "1"}, 'Cannot use "id" when "pci" is set'),
        ({"mig.uuid": "MIG-1234", "count": "2"}, "count"),
        ({"mig.profile": "big"}, "a profile such as 1g.5gb"),
        ({"mig.uuid": "a\nb"}, "UUID"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        GpuMig(below(Path("/nowhere")), "n1").check({"type": "gpu", "gputype": "mig", **options})
