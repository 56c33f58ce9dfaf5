"""What a made-up host has, in LXD's shapes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.hardware import cpu, memory, network, pci, storage, system, usb
from lxdpy.host.paths import HostRoot
from tests.lxdpy.host.hardware.tree import built


@pytest.fixture
def root(tmp_path: Path) -> HostRoot:
    return built(tmp_path)


@pytest.fixture
def ids(tmp_path: Path) -> PciIds:
    path = tmp_path / "pci.ids"
    path.write_text("8086  Intel Corporation\n\t1572  Ethernet Controller X710\n")
    return PciIds(path)


def wire(value: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_cpus_stand_by_socket_core_and_thread(root: HostRoot) -> None:
    first, second = wire(cpu.cpus(root))["sockets"]
    assert first == {
        "socket": 0,
        "name": "Xeon 9000",
        "vendor": "GenuineIntel",
        "cache": [
            {"level": 1, "type": "Data", "size": 32768},
            {"level": 2, "type": "Unified", "size": 1048576},
        ],
        "cores": [
            {
                "core": 0,
                "die": 0,
                "frequency": 3000,
                "threads": [
                    {"id": 0, "numa_node": 0, "thread": 0, "online": True, "isolated": False},
                    {"id": 1, "numa_node": 0, "thread": 1, "online": True, "isolated": False},
                ],
            }
        ],
        "frequency": 3000,
        "frequency_minimum": 800,
        "frequency_turbo": 4200,
    }
    (core,) = second["cores"]
    assert core["frequency"] == 2100
    assert core["threads"] == [{"id": 2, "numa_node": 1, "thread": 0, "online": True, "isolated": True}]
    assert "frequency_turbo" not in second


def test_only_cpus_that_run_are_counted(root: HostRoot) -> None:
    assert cpu.online(root) == [0, 1, 2]
    assert cpu.cpus(root).total == 3


def test_memory_is_in_bytes_and_what_can_be_reclaimed_is_free(root: HostRoot) -> None:
    found = wire(memory.memory(root))
    assert (found["total"], found["used"]) == (1000 * 1024, 400 * 1024)
    assert (found["hugepages_size"], found["hugepages_total"], found["hugepages_used"]) == (
        2 * 2**20, 8 * 2**20, 6 * 2**20,
    )  # fmt: skip
    assert found["nodes"][1] == {
        "numa_node": 1,
        "hugepages_total": 4 * 2**20,
        "hugepages_used": 0,
        "total": 500 * 1024,
        "used": 250 * 1024,
    }


def test_network_cards_have_ports_and_functions(root: HostRoot, ids: PciIds) -> None:
    found = wire(network.network(root, ids))
    assert found["total"] == 2
    (card,) = found["cards"]
    functions = card["sriov"].pop("vfs")
    assert card == {
        "driver": "i40e",
        "driver_version": "2.8",
        "numa_node": 1,
        "pci_address": "0000:00:03.0",
        "vendor": "Intel Corporation",
        "vendor_id": "8086",
        "product": "Ethernet Controller X710",
        "product_id": "1572",
        "sriov": {"current_vfs": 1, "maximum_vfs": 64},
        "ports": [
            {
                "id": "eth0",
                "address": "00:11:22:33:44:55",
                "port": 0,
                "protocol": "ethernet",
                "auto_negotiation": False,
                "link_detected": True,
                "link_speed": 10000,
                "link_duplex": "full",
            }
        ],
    }
    assert [(one["pci_address"], one["numa_node"]) for one in functions] == [("0000:00:03.1", 0)]


def test_disks_are_hardware_only(root: HostRoot) -> None:
    found = wire(storage.storage(root))
    nvme, stick = found["disks"]
    assert found["total"] == 3
    assert nvme == {
        "id": "nvme0n1",
        "device": "259:0",
        "device_id": "nvme-eui.01",
        "model": "INTEL SSD",
        "type": "nvme",
        "read_only": False,
        "size": 1024000,
        "removable": False,
        "wwn": "eui.01",
        "numa_node": 1,
        "block_size": 4096,
        "firmware_version": "PSF",
        "rpm": 0,
        "serial": "BTP",
        "pci_address": "0000:00:05.0",
        "partitions": [
            {"id": "nvme0n1p1", "device": "259:1", "read_only": True, "size": 512000, "partition": 1}
        ],
    }
    assert (stick["type"], stick["usb_address"], stick["removable"], stick["rpm"]) == ("usb", "1:7", True, 1)


def test_usb_devices_are_all_but_hubs(root: HostRoot) -> None:
    found = wire(usb.usb(root))
    assert found["total"] == 1
    (stick,) = found["devices"]
    assert (stick["vendor"], stick["product_id"], stick["speed"]) == ("Kingston", "1666", 480.0)
    assert stick["interfaces"] == [
        {
            "class": "Mass Storage",
            "class_id": 8,
            "driver": "usb-storage",
            "driver_version": "6.1.0-test",
            "number": 0,
            "subclass": "",
            "subclass_id": 6,
        }
    ]


def test_pci_devices_have_names_and_groups(root: HostRoot, ids: PciIds) -> None:
    found = wire(pci.pci(root, ids))
    assert found["total"] == 2
    assert found["devices"][0] == {
        "driver": "i40e",
        "driver_version": "2.8",
        "iommu_group": 20,
        "numa_node": 1,
        "pci_address": "0000:00:03.0",
        "vendor": "Intel Corporation",
        "vendor_id": "8086",
        "product": "Ethernet Controller X710",
        "product_id": "1572",
        "vpd": {},
    }


def test_vital_product_data_is_read_as_far_as_it_is_whole() -> None:
    fields = b"PN\x04AB12" + b"SN\x01X" + b"RV\x01\x00"
    whole = b"\x82\x05\x00Card!" + b"\x90" + len(fields).to_bytes(2, "little") + fields + b"\x78"
    found = pci.parse_vpd(whole)
    assert (found.product_name, found.entries) == ("Card!", {"PN": "AB12", "SN": "X"})
    assert pci.parse_vpd(whole[:9]).product_name == "Card!"
    assert pci.parse_vpd(b"\xff" * 20).entries == {}
    assert pci.parse_vpd(b"") == pci.Vpd()


def test_the_system_tells_its_maker_and_kind(tmp_path: Path) -> None:
    found = wire(system.system(built(tmp_path / "a")))
    assert (found["vendor"], found["sku"], found["type"]) == ("LENOVO", "sku", "physical")
    assert found["chassis"] == {
        "vendor": "Lenovo", "type": "Rack Mount Chassis", "serial": "S", "version": "V",
    }  # fmt: skip
    assert found["firmware"]["date"] == "10/14/2020"
    assert found["motherboard"]["product"] == "B"
    root = built(tmp_path / "b", hypervisor=True)
    assert system.system(root).type == "virtual-machine"
    (root.proc / "1").mkdir()
    (root.proc / "1/environ").write_bytes(b"A=1\0container=lxc\0")
    assert system.system(root).type == "container"


def test_an_empty_host_is_no_error(tmp_path: Path) -> None:
    root = HostRoot(sys=tmp_path / "s", proc=tmp_path / "p", dev=tmp_path / "d")
    assert cpu.cpus(root).total == 0
    assert memory.memory(root).total == 0
    assert network.network(root, PciIds(None)).total == 0
    assert storage.storage(root).total == usb.usb(root).total == pci.pci(root, PciIds(None)).total == 0
    assert system.system(root).firmware is None
