from pathlib import Path
from typing import Any

from lxdpy.host.gpu.fake_tree import Entry, Link
from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.gpu.resources import resources
from tests.lxdpy.host.gpu import trees
from tests.lxdpy.host.gpu.trees import make, mixed

PCI_IDS = """# a comment
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t740f  Aldebaran/MI200 [Instinct MI210]
\t\t1002 0c34  a subsystem
10de  NVIDIA Corporation
\t20b0  GA100 [A100 SXM4 40GB]
C 03  Display controller
\t00  VGA compatible controller
"""


def _resources(folder: Path) -> dict[str, Any]:
    (folder / "pci.ids").write_text(PCI_IDS)
    return resources(make(folder / "root", mixed()), PciIds(folder / "pci.ids"))


def test_lxd_counts_every_display_device_and_virtual_function(tmp_path: Path) -> None:
    found = _resources(tmp_path)
    assert found["total"] == 9
    assert [card["pci_address"] for card in found["cards"]] == [
        trees.BMC, trees.A100_1, trees.A100_2, trees.MI210, trees.FLEX, trees.IGPU, trees.VFIO_T4,
    ]  # fmt: skip


def test_an_nvidia_card_is_shown_in_lxds_shape(tmp_path: Path) -> None:
    assert _resources(tmp_path)["cards"][2] == {
        "driver": "nvidia",
        "driver_version": "550.54.14",
        "drm": {
            "id": 2,
            "card_name": "card2",
            "card_device": "226:2",
            "render_name": "renderD129",
            "render_device": "226:129",
        },
        "nvidia": {
            "brand": "",
            "model": "NVIDIA A100-SXM4-40GB",
            "card_name": "nvidia0",
            "card_device": "195:0",
            "nvrm_version": "550.54.14",
            "uuid": trees.UUID_2,
        },
        "numa_node": 1,
        "pci_address": trees.A100_2,
        "vendor": "NVIDIA Corporation",
        "vendor_id": "10de",
        "product": "GA100 [A100 SXM4 40GB]",
        "product_id": "20b0",
    }


def test_a_card_without_drm_or_names_leaves_them_out(tmp_path: Path) -> None:
    assert _resources(tmp_path)["cards"][6] == {
        "driver": "vfio-pci",
        "driver_version": "6.1.0-13-amd64",
        "numa_node": 0,
        "pci_address": trees.VFIO_T4,
        "vendor": "NVIDIA Corporation",
        "vendor_id": "10de",
        "product_id": "1eb8",
    }


def test_virtual_functions_stand_below_their_parent(tmp_path: Path) -> None:
    sriov = _resources(tmp_path)["cards"][4]["sriov"]
    assert (sriov["current_vfs"], sriov["maximum_vfs"]) == (2, 31)
    assert [vf["pci_address"] for vf in sriov["vfs"]] == [trees.FLEX_VF1, trees.FLEX_VF2]


def test_mediated_devices_are_listed(tmp_path: Path) -> None:
    types = f"sys/devices/pci0000:00/{trees.IGPU}/mdev_supported_types/i915-GVTg_V5_8"
    tree: dict[str, Entry] = mixed() | {
        f"{types}/device_api": "vfio-pci\n",
        f"{types}/available_instances": "2\n",
        f"{types}/description": "low_gm_size: 64MB\nweight: 2\n",
        f"{types}/devices/4220-0977": Link("../.."),
    }
    found = resources(make(tmp_path, tree), PciIds(None))["cards"][5]["mdev"]
    assert found == {
        "i915-GVTg_V5_8": {
            "api": "vfio-pci",
            "available": 2,
            "description": "low_gm_size: 64MB\nweight: 2",
            "devices": ["4220-0977"],
        }
    }


def test_a_card_on_usb_has_a_usb_address(tmp_path: Path) -> None:
    home = "sys/devices/usb1/1-2"
    tree: dict[str, Entry] = {
        f"{home}/busnum": "1\n",
        f"{home}/devnum": "7\n",
        f"{home}/subsystem": Link("../../../bus/usb"),
        f"{home}/drm/card0/dev": "226:0\n",
        f"{home}/drm/card0/device": Link("../.."),
        "sys/bus/usb/uevent": "",
        "sys/class/drm/card0": Link("../../devices/usb1/1-2/drm/card0"),
    }
    (found,) = resources(make(tmp_path, tree), PciIds(None))["cards"]
    assert found == {
        "drm": {"id": 0, "card_name": "card0", "card_device": "226:0"},
        "numa_node": 0,
        "usb_address": "1:7",
    }


def test_a_host_without_cards_has_an_empty_list(tmp_path: Path) -> None:
    assert resources(trees.below(tmp_path), PciIds(None)) == {"cards": [], "total": 0}
