"""A host with every kind of display device, below a folder. Its device files are links to /dev/null, so that
no test needs root."""

from pathlib import Path

from lxdpy.host.gpu.fake_tree import VERSION_FILE, Char, Entry, Link, write
from lxdpy.host.paths import HostRoot

A100_1, A100_2, MI210 = "0000:07:00.0", "0000:47:00.0", "0000:83:00.0"
FLEX, FLEX_VF1, FLEX_VF2 = "0000:9a:00.0", "0000:9a:00.1", "0000:9a:00.2"
IGPU, VFIO_T4, BMC = "0000:00:02.0", "0000:3b:00.0", "0000:02:00.0"
UUID_1 = "GPU-11111111-1111-1111-1111-111111111111"
UUID_2 = "GPU-22222222-2222-2222-2222-222222222222"


def link_to_null(path: Path, device: Char) -> None:
    path.symlink_to("/dev/null")


def below(folder: Path) -> HostRoot:
    return HostRoot(sys=folder / "sys", proc=folder / "proc", dev=folder / "dev")


def make(folder: Path, entries: dict[str, Entry]) -> HostRoot:
    write(folder, entries, link_to_null)
    return below(folder)


def card(
    address: str, ids: str, driver: str, drm: int | None = None, render: int | None = None, **files: str
) -> dict[str, Entry]:
    """One PCI display device; `ids` is "vendor:product"; `files` are further ones in its folder."""
    vendor, product = ids.split(":")
    home = f"sys/devices/pci0000:00/{address}"
    found: dict[str, Entry] = {
        f"{home}/vendor": f"0x{vendor}\n",
        f"{home}/device": f"0x{product}\n",
        f"{home}/class": "0x030000\n",
        f"{home}/numa_node": "-1\n",
        f"{home}/subsystem": Link("../../../bus/pci"),
        f"{home}/driver": Link(f"../../../bus/pci/drivers/{driver}"),
        f"sys/bus/pci/drivers/{driver}/bind": "",
        f"sys/bus/pci/devices/{address}": Link(f"../../../devices/pci0000:00/{address}"),
    }
    for name, number in ((f"card{drm}", drm), (f"renderD{render}", render)):
        if number is not None:
            found[f"{home}/drm/{name}/dev"] = f"226:{number}\n"
            found[f"{home}/drm/{name}/device"] = Link("../..")
            found[f"sys/class/drm/{name}"] = Link(f"../../devices/pci0000:00/{address}/drm/{name}")
            found[f"dev/dri/{name}"] = Char(226, number)
    return found | {f"{home}/{name}": content for name, content in files.items()}


def information(address: str, uuid: str, minor: int) -> dict[str, Entry]:
    return {
        f"proc/driver/nvidia/gpus/{address}/information": (
            f"Model: \t\t NVIDIA A100-SXM4-40GB\nGPU UUID: \t {uuid}\nBus Location: \t {address}\n"
            f"Device Minor: \t {minor}\n"
        ),
        f"dev/nvidia{minor}": Char(195, minor),
    }


def mixed() -> dict[str, Entry]:
    """Two A100, an MI210, a Flex 170 with two virtual functions, an integrated GPU, a T4 kept for virtual
    machines, and a BMC, which is card0."""
    mi210 = {"mem_info_vram_total": "68702699520\n", "unique_id": "9f3c0e1d2b4a5968\n"}
    vf = f"sys/devices/pci0000:00/{FLEX_VF1}", f"sys/devices/pci0000:00/{FLEX_VF2}"
    return {
        **card(BMC, "1a03:2000", "ast", 0),
        **card(A100_1, "10de:20b0", "nvidia", 1, 128, numa_node="0\n"),
        **card(A100_2, "10de:20b0", "nvidia", 2, 129, numa_node="1\n"),
        **card(MI210, "1002:740f", "amdgpu", 3, 130, **mi210),
        **card(FLEX, "8086:56c0", "i915", 4, 131, sriov_numvfs="2\n", sriov_totalvfs="31\n"),
        **card(FLEX_VF1, "8086:56c0", "i915", 5, 132),
        **card(FLEX_VF2, "8086:56c0", "vfio-pci"),
        **card(IGPU, "8086:4680", "i915", 6, 133),
        **card(VFIO_T4, "10de:1eb8", "vfio-pci"),
        **information(A100_1, UUID_1, 1),
        **information(A100_2, UUID_2, 0),
        f"{vf[0]}/physfn": Link(f"../{FLEX}"),
        f"{vf[1]}/physfn": Link(f"../{FLEX}"),
        f"sys/devices/pci0000:00/{FLEX}/drm/card4/lmem_total_bytes": "14462734336\n",
        "sys/class/drm/card1-DP-1/status": "disconnected\n",
        "sys/class/drm/version": "drm 1.1.0 20060810\n",
        "sys/module/nvidia/version": "550.54.14\n",
        "sys/bus/pci/drivers/nvidia/module": Link("../../../../module/nvidia"),
        "proc/sys/kernel/osrelease": "6.1.0-13-amd64\n",
        "proc/driver/nvidia/version": VERSION_FILE,
        "dev/nvidiactl": Char(195, 255),
        "dev/nvidia-uvm": Char(511, 0),
        "dev/nvidia-uvm-tools": Char(511, 1),
        "dev/kfd": Char(510, 0),
    }  # fmt: skip
