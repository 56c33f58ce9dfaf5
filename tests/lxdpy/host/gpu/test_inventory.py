from pathlib import Path

import pytest

from lxdpy.host.gpu.fake_tree import Char, Entry, Link
from lxdpy.host.gpu.inventory import control_nodes, discover
from tests.lxdpy.host.gpu import trees
from tests.lxdpy.host.gpu.trees import card, information, make, mixed


def test_only_cards_that_can_be_given_are_gpus(tmp_path: Path) -> None:
    """Not the BMC, nor the card kept for virtual machines, nor virtual functions."""
    found = discover(make(tmp_path, mixed()), "n1")
    assert [gpu.pci_address for gpu in found] == [
        trees.IGPU, trees.A100_1, trees.A100_2, trees.MI210, trees.FLEX,
    ]  # fmt: skip


def test_identity_is_the_cards_own_number_or_its_place(tmp_path: Path) -> None:
    found = {gpu.pci_address: gpu.uuid for gpu in discover(make(tmp_path, mixed()), "n1")}
    assert found == {
        trees.A100_1: trees.UUID_1,
        trees.A100_2: trees.UUID_2,
        trees.MI210: "9f3c0e1d2b4a5968",
        trees.FLEX: "n1-0000:9a:00.0",
        trees.IGPU: "n1-0000:00:02.0",
    }


def test_what_the_kernel_tells_is_read(tmp_path: Path) -> None:
    found = {gpu.pci_address: gpu for gpu in discover(make(tmp_path, mixed()), "n1")}
    a100, mi210, flex = found[trees.A100_1], found[trees.MI210], found[trees.FLEX]
    assert (a100.vendor, a100.model, a100.driver, a100.driver_version) == (
        "nvidia", "NVIDIA A100-SXM4-40GB", "nvidia", "550.54.14",
    )  # fmt: skip
    assert (a100.drm_id, a100.minor, a100.numa_node, a100.product_id) == ("1", 1, 0, "20b0")
    assert (mi210.vendor, mi210.memory, mi210.driver_version) == ("amd", 68702699520, "6.1.0-13-amd64")
    assert (flex.vendor, flex.memory, flex.numa_node) == ("intel", 14462734336, -1)


def test_device_files_go_by_minor_not_by_drm_number(tmp_path: Path) -> None:
    """The first A100 is card1 and nvidia1 here, the second card2 and nvidia0."""
    root = make(tmp_path, mixed())
    found = {gpu.pci_address: [node.path for node in gpu.nodes] for gpu in discover(root, "n1")}
    assert found[trees.A100_1] == ["/dev/nvidia1", "/dev/dri/card1", "/dev/dri/renderD128"]
    assert found[trees.A100_2] == ["/dev/nvidia0", "/dev/dri/card2", "/dev/dri/renderD129"]
    assert found[trees.MI210] == ["/dev/dri/card3", "/dev/dri/renderD130"]
    node = discover(root, "n1")[1].nodes[0]
    assert (node.major, node.minor, node.source) == (1, 3, str(root.dev / "nvidia1"))


def test_control_files_are_those_of_the_vendors(tmp_path: Path) -> None:
    root = make(tmp_path, mixed())
    nvidia = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    assert [node.path for node in control_nodes(root, frozenset({"nvidia"}))] == nvidia
    assert [node.path for node in control_nodes(root, frozenset({"amd"}))] == ["/dev/kfd"]
    assert control_nodes(root, frozenset({"intel"})) == ()
    assert [node.path for node in control_nodes(root)] == [*nvidia, "/dev/kfd"]


@pytest.mark.parametrize("missing", ["dev/nvidia1", f"proc/driver/nvidia/gpus/{trees.A100_1}/information"])
def test_an_nvidia_card_without_its_device_file_is_not_usable(tmp_path: Path, missing: str) -> None:
    tree = mixed()
    del tree[missing]
    assert trees.A100_1 not in {gpu.pci_address for gpu in discover(make(tmp_path, tree), "n1")}


def test_a_card_without_a_render_node_is_not_usable(tmp_path: Path) -> None:
    tree = mixed()
    del tree["dev/dri/renderD130"]
    assert trees.MI210 not in {gpu.pci_address for gpu in discover(make(tmp_path, tree), "n1")}


def test_a_plain_file_is_no_device(tmp_path: Path) -> None:
    tree: dict[str, Entry] = mixed() | {"dev/nvidia1": "not a device"}
    assert trees.A100_1 not in {gpu.pci_address for gpu in discover(make(tmp_path, tree), "n1")}


def test_nvidia_without_nvidia_drm_is_usable(tmp_path: Path) -> None:
    tree = card("0000:07:00.0", "10de:20b0", "nvidia") | information("0000:07:00.0", trees.UUID_1, 0)
    (gpu,) = discover(make(tmp_path, tree), "n1")
    assert (gpu.drm_id, [node.path for node in gpu.nodes]) == ("", ["/dev/nvidia0"])


def test_a_card_the_driver_has_not_met_is_named_by_its_place(tmp_path: Path) -> None:
    unknown = "GPU-????????-????-????-????-????????????"
    tree = card("0000:07:00.0", "10de:20b0", "nvidia") | information("0000:07:00.0", unknown, 0)
    assert discover(make(tmp_path, tree), "n1")[0].uuid == "n1-0000:07:00.0"


def test_an_empty_unique_id_is_none(tmp_path: Path) -> None:
    tree = card("0000:07:00.0", "1002:73bf", "amdgpu", 0, 128, unique_id="0000000000000000\n")
    assert discover(make(tmp_path, tree), "n2")[0].uuid == "n2-0000:07:00.0"


def test_the_modules_folder_names_addresses_its_own_way(tmp_path: Path) -> None:
    tree = card("0000:0a:00.0", "10de:20b0", "nvidia") | information("00000000:0A:00.0", trees.UUID_1, 0)
    assert discover(make(tmp_path, tree), "n1")[0].uuid == trees.UUID_1


def test_xgmi_links_come_from_the_kernels_topology(tmp_path: Path) -> None:
    def node(number: int, simd: int, location: int) -> dict[str, Entry]:
        top = f"sys/class/kfd/kfd/topology/nodes/{number}"
        return {f"{top}/properties": f"simd_count {simd}\nlocation_id {location}\ndomain 0\n"}

    tree: dict[str, Entry] = {
        **card("0000:07:00.0", "1002:740f", "amdgpu", 0, 128, unique_id="aa\n"),
        **card("0000:08:00.0", "1002:740f", "amdgpu", 1, 129, unique_id="bb\n"),
        **node(0, 0, 0),
        **node(1, 416, 0x700),
        **node(2, 416, 0x800),
        "sys/class/kfd/kfd/topology/nodes/1/io_links/0/properties": "type 2\nnode_from 1\nnode_to 0\n",
        "sys/class/kfd/kfd/topology/nodes/1/io_links/1/properties": "type 11\nnode_from 1\nnode_to 2\n",
    }
    assert [gpu.links for gpu in discover(make(tmp_path, tree), "n1")] == [{"bb": "xgmi"}, {}]


def test_a_card_cut_by_mig_says_so(tmp_path: Path) -> None:
    mig = "proc/driver/nvidia/capabilities/gpu1/mig"
    tree = mixed() | {f"{mig}/gi2/access": "DeviceFileMinor: 21\n", f"{mig}/config": "DeviceFileMinor: 1\n"}
    tree[f"{mig}/gi3/ci0/access"] = "DeviceFileMinor: 31\n"
    found = {gpu.pci_address: gpu for gpu in discover(make(tmp_path, tree), "n1")}
    assert (found[trees.A100_1].cut, found[trees.A100_2].cut) == (True, False)
    assert [(part.uuid, part.gi, part.ci) for part in found[trees.A100_1].mig] == [
        (f"MIG-{trees.UUID_1}/3/0", 3, 0)
    ]


def test_a_host_without_any_of_it_has_no_gpus(tmp_path: Path) -> None:
    root = trees.below(tmp_path / "nowhere")
    assert discover(root, "n1") == ()
    assert control_nodes(root) == ()


def test_a_broken_tree_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    tree = mixed() | {
        f"sys/devices/pci0000:00/{trees.MI210}/numa_node": "garbage\n",
        f"sys/devices/pci0000:00/{trees.MI210}/mem_info_vram_total": "",
        "sys/class/drm/card77": Link("../../devices/gone"),
        "dev/nvidia7": Char(195, 7),
    }
    found = {gpu.pci_address: gpu for gpu in discover(make(tmp_path, tree), "n1")}
    assert (len(found), found[trees.MI210].numa_node, found[trees.MI210].memory) == (5, -1, 0)


def test_errors_of_amds_memory_are_counted_over_its_parts(tmp_path: Path) -> None:
    ras = f"sys/devices/pci0000:00/{trees.MI210}/ras"
    tree = mixed() | {f"{ras}/umc_err_count": "ue: 2\nce: 7\n", f"{ras}/gfx_err_count": "ue: 1\nce: 0\n"}
    found = {gpu.pci_address: gpu for gpu in discover(make(tmp_path, tree), "n1")}
    assert (found[trees.MI210].signs.ecc, found[trees.MI210].health) == (3, "failed")
