"""Which interface and which device files an InfiniBand device is given."""

import shutil
from pathlib import Path

import pytest

from cluster.errors import Exhausted, Invalid
from lxdpy.host.devices.driver import Seat
from lxdpy.host.devices.infiniband import device_files, interface_of
from tests.lxdpy.host.devices.infiniband_files import card


def seat(nictype: str, parent: str = "ib0", **volatile: str) -> Seat:
    options = {"type": "infiniband", "nictype": nictype, "parent": parent}
    return Seat(instance="default/c1", name="d", options=options, volatile=volatile)


def test_a_physical_one_is_the_parent_with_its_own_files(tmp_path: Path) -> None:
    root = card(tmp_path)
    assert interface_of(root, seat("physical")) == "ib0"
    found = [(node.path, node.major, node.minor) for node in device_files(root, "ib0")]
    assert found == [
        ("/dev/infiniband/issm0", 231, 64),
        ("/dev/infiniband/umad0", 231, 0),
        ("/dev/infiniband/uverbs0", 231, 192),
    ]


def test_a_function_is_one_that_is_on_the_host(tmp_path: Path) -> None:
    root = card(tmp_path)
    assert interface_of(root, seat("sriov")) == "ib1"
    assert interface_of(root, seat("sriov", host_name="ib2")) == "ib2"
    shutil.rmtree(root.sys / "devices/pci/1/net")  # it is in a container
    assert interface_of(root, seat("sriov")) == "ib2"
    assert [node.minor for node in device_files(root, "ib2")] == [66, 2, 194]
    shutil.rmtree(root.sys / "devices/pci/2/net")
    with pytest.raises(Exhausted, match="No virtual function of ib0 is free"):
        interface_of(root, seat("sriov"))


def test_another_kind_of_interface_is_refused(tmp_path: Path) -> None:
    root = card(tmp_path)
    (root.sys / "class/net/ib0/type").write_text("1\n")
    with pytest.raises(Invalid, match='"parent=ib0" is not an InfiniBand interface'):
        interface_of(root, seat("physical"))
