import asyncio
from pathlib import Path

import pytest

from cluster.errors import Invalid
from cluster.scheduler.selectors import ask_of
from lxdpy.host.devices.driver import Node, Seat
from lxdpy.host.devices.gpu_options import GpuGone, NoGrant
from lxdpy.host.devices.gpu_physical import GpuPhysical
from lxdpy.host.gpu.fake_tree import Char
from tests.lxdpy.host.gpu import trees
from tests.lxdpy.host.gpu.trees import make, mixed


def _seat(*gpus: str, volatile: dict[str, str] | None = None, **options: str) -> Seat:
    return Seat(
        instance="default/c1",
        name="gpu",
        options={"type": "gpu", **options},
        gpus=gpus,
        volatile=volatile or {},
    )


def test_a_container_gets_its_gpus_and_the_control_files_and_no_others(tmp_path: Path) -> None:
    root = make(tmp_path, mixed() | {"dev/nvidia-modeset": Char(195, 254)})
    found = asyncio.run(GpuPhysical(root, "n1").start(_seat(trees.UUID_2)))
    assert [node.path for node in found.nodes] == [
        "/dev/nvidia0", "/dev/dri/card2", "/dev/dri/renderD129",
        "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset",
    ]  # fmt: skip
    assert found.nodes[0] == Node(
        path="/dev/nvidia0", major=1, minor=3, source=str(root.dev / "nvidia0"), mode=0o660
    )
    assert found.environment == {"NVIDIA_VISIBLE_DEVICES": trees.UUID_2}
    assert found.volatile["gpu.uuids"] == trees.UUID_2


def test_an_amd_gpu_comes_with_kfd_and_an_intel_one_with_nothing(tmp_path: Path) -> None:
    driver = GpuPhysical(make(tmp_path, mixed()), "n1")
    amd = asyncio.run(driver.start(_seat("9f3c0e1d2b4a5968")))
    assert [node.path for node in amd.nodes] == ["/dev/dri/card3", "/dev/dri/renderD130", "/dev/kfd"]
    assert amd.environment == {}
    intel = asyncio.run(driver.start(_seat(f"n1-{trees.FLEX}")))
    assert [node.path for node in intel.nodes] == ["/dev/dri/card4", "/dev/dri/renderD131"]


def test_owner_and_mode_in_the_container_can_be_chosen(tmp_path: Path) -> None:
    driver = GpuPhysical(make(tmp_path, mixed()), "n1")
    found = asyncio.run(driver.start(_seat(trees.UUID_1, uid="1000", gid="44", mode="0666")))
    assert {(node.uid, node.gid, node.mode) for node in found.nodes} == {(1000, 44, 0o666)}


def test_what_was_given_is_taken_though_the_card_is_gone(tmp_path: Path) -> None:
    root = make(tmp_path, mixed())
    driver = GpuPhysical(root, "n1")
    started = asyncio.run(driver.start(_seat(trees.UUID_1)))
    (root.dev / "nvidia1").unlink()
    detached = asyncio.run(driver.detach(_seat(trees.UUID_1, volatile=started.volatile)))
    assert [(n.path, n.major, n.minor) for n in detached.nodes] == [
        (n.path, n.major, n.minor) for n in started.nodes
    ]


def test_a_device_that_never_started_has_nothing_to_take(tmp_path: Path) -> None:
    driver = GpuPhysical(make(tmp_path, mixed()), "n1")
    assert asyncio.run(driver.detach(_seat())).nodes == ()
    asyncio.run(driver.stop(_seat()))


def test_a_granted_gpu_that_is_gone_is_named(tmp_path: Path) -> None:
    driver = GpuPhysical(make(tmp_path, mixed()), "n1")
    with pytest.raises(GpuGone, match="GPU-9"):
        asyncio.run(driver.start(_seat(trees.UUID_1, "GPU-9")))


def test_nothing_is_given_without_a_grant(tmp_path: Path) -> None:
    with pytest.raises(NoGrant, match="gpu"):
        asyncio.run(GpuPhysical(make(tmp_path, mixed()), "n1").start(_seat()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"count": "2", "match": "model~A100 memory>=40GiB"},
        {"sharing": "shared", "memory": "4GiB", "count": "1"},
        {"pci": "07:00.0"},
        {"pci": "0000:07:00.0", "count": "1"},
        {"vendorid": "10de", "productid": "0x20B0", "uid": "0", "mode": "666"},
        {"id": "1", "gputype": "physical"},
    ],
)
def test_good_options_pass_and_can_be_asked_for(options: dict[str, str]) -> None:
    GpuPhysical(trees.below(Path("/nowhere")), "n1").check({"type": "gpu", **options})
    ask_of("gpu", {"type": "gpu", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": "red"}, "Unknown configuration key: colour"),
        ({"count": "0"}, 'Invalid value for count: "0"'),
        ({"match": "cores>1"}, "known are: driver"),
        ({"sharing": "maybe"}, "exclusive, shared"),
        ({"memory": "lots"}, "a size"),
        ({"pci": "somewhere"}, "a PCI address"),
        ({"pci": "0000:07:00.0", "id": "1"}, 'Cannot use "id" when "pci" is set'),
        ({"id": "1", "vendorid": "10de"}, 'Cannot use "vendorid" when "id" is set'),
        ({"pci": "0000:07:00.0", "count": "2"}, '"count" must be 1'),
        ({"id": "first"}, "whole number"),
        ({"vendorid": "nvidia"}, "four hex digits"),
        ({"mode": "rw"}, "octal"),
        ({"uid": "-1"}, "at least 0"),
        ({"gputype": "mdev"}, "physical"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        GpuPhysical(trees.below(Path("/nowhere")), "n1").check({"type": "gpu", **options})
