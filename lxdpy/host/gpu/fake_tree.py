"""The files that make a host seem to have the GPUs of a `FakeGpu` list: as data, and onto the disk.

Layout and contents are those the drivers make. Device files are real character devices, of numbers behind
which this host has no driver: in a container, opening one that was given says ENXIO, one that was not ENOENT,
one that the device cgroup denies EPERM.
"""

import filecmp
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from lxdpy.host.gpu import nvidia
from lxdpy.host.gpu.facts import Facts, Mig
from lxdpy.host.gpu.fake_nvml import CUDA_VERSION, DRIVER_VERSION, cards
from lxdpy.host.gpu.fake_products import VENDOR_IDS
from lxdpy.host.gpu.fake_spec import FakeGpu
from lxdpy.host.gpu.probe import LIBRARY, RECORDED
from lxdpy.host.paths import HostRoot

VERSION_FILE = (
    f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER_VERSION}  Thu Feb 22 01:44:30 UTC 2024\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
PCI_CLASS = {"nvidia": "0x030200", "amd": "0x038000", "intel": "0x038000"}
RENDER = 128  # DRM minors: cards from 0, render nodes from here
USUAL = {"nvidia": 195, "drm": 226, "nvidia-uvm": 120, "nvidia-caps": 121, "kfd": 122}
SPARE = (*range(123, 128), *range(60, 64), *range(120, 123))
"""Major numbers kept for local use; for device files whose usual number has a driver on this host."""


class Link(msgspec.Struct, frozen=True):
    """A symbolic link; the target is relative to the folder the link is in."""

    target: str


class Char(msgspec.Struct, frozen=True):
    """A character device."""

    major: int
    minor: int


class Copy(msgspec.Struct, frozen=True):
    """A copy of another file."""

    source: Path


class Numbers(msgspec.Struct, frozen=True):
    """The numbers of one card's device files, kept for as long as the card is there."""

    drm: int
    minor: int = -1  # of /dev/nvidiaN


Entry = str | Link | Char | Copy
MakeNode = Callable[[Path, Char], None]


def majors(taken: Iterable[int]) -> dict[str, int]:
    """A major number for each kind of device file, none of which is in `taken`."""
    used = set(taken)
    found: dict[str, int] = {}
    for kind, usual in USUAL.items():
        found[kind] = next(number for number in (usual, *SPARE) if number not in used)
        used.add(found[kind])
    return found


def majors_in_use(root: HostRoot) -> set[int]:
    """Those of character devices that this host has a driver for."""
    head = (root.proc / "devices").read_text().partition("Block devices")[0]
    return {int(line.split()[0]) for line in head.splitlines() if line[:4].strip().isdigit()}


def numbered(gpus: Iterable[FakeGpu], before: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """By uuid: the numbers a card had before, the lowest free ones for a new card."""
    gpus = list(gpus)
    found = {gpu.uuid: before[gpu.uuid] for gpu in gpus if gpu.uuid in before}
    for gpu in gpus:
        if gpu.uuid not in found:
            minor = _lowest({each.minor for each in found.values()}) if gpu.vendor == "nvidia" else -1
            found[gpu.uuid] = Numbers(_lowest({each.drm for each in found.values()}), minor)
    return found


def tree(
    gpus: Iterable[FakeGpu],
    numbers: Mapping[str, Numbers],
    major: Mapping[str, int],
    library: Path | None = None,
    boot: int = 1,
) -> dict[str, Entry]:
    """Everything below the root, by path. `library`: the NVML that is to answer for NVIDIA's cards."""
    gpus = list(gpus)
    found: dict[str, Entry] = {
        "proc/sys/kernel/osrelease": "6.1.0-fake\n",
        "proc/sys/kernel/random/boot_id": f"{boot}\n",
    }
    for gpu in gpus:
        found |= _pci(gpu, numbers[gpu.uuid], major)
        if gpu.vendor == "nvidia":
            found |= _nvidia(gpu, numbers[gpu.uuid], major)
    if any(gpu.vendor == "nvidia" for gpu in gpus):
        found["proc/driver/nvidia/version"] = VERSION_FILE
        found["sys/module/nvidia/version"] = f"{DRIVER_VERSION}\n"
        kinds = ("nvidia", "nvidia-uvm", "nvidia-uvm", "nvidia")
        for name, kind, minor in zip(nvidia.CONTROL, kinds, (255, 0, 1, 254), strict=True):
            found[f"dev/{name}"] = Char(major[kind], minor)
    if any(gpu.vendor == "amd" for gpu in gpus):
        found["dev/kfd"] = Char(major["kfd"], 0)
    if library:
        found[f"proc/{LIBRARY}"] = Copy(library)
        minors = {uuid: each.minor for uuid, each in numbers.items()}
        found[f"proc/{Path(LIBRARY).with_name('cards')}"] = cards(gpus, minors)
    facts = {gpu.pci: _facts(gpu) for gpu in gpus if not (library and gpu.vendor == "nvidia")}
    found[f"proc/{RECORDED}"] = msgspec.json.encode(facts, order="sorted").decode()
    return found


def write(folder: Path, wanted: Mapping[str, Entry], make_node: MakeNode) -> None:
    """Make `folder` hold exactly `wanted`. Idempotent; what is right already is not touched, so that device
    files stay the same files, and what is to go goes last."""
    for name, entry in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, entry, make_node)
    kept = {folder / name for name in wanted}
    kept |= {parent for path in kept for parent in path.parents}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(top, name)
            if path in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
                folders.remove(name)
            else:
                path.unlink()


def mknod(path: Path, device: Char) -> None:
    """Open to all, as NVIDIA makes its own: whom a container lets near is a matter of which files it has."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(device.major, device.minor))
    path.chmod(0o666)


def _put(path: Path, entry: Entry, make_node: MakeNode) -> None:
    """By way of a new name, so that a reader finds the old or the new, never half of it."""
    if _is(path, entry):
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    match entry:
        case str():
            fresh.write_text(entry)
        case Link(target):
            fresh.symlink_to(target)
        case Char():
            make_node(fresh, entry)
        case Copy(source):
            shutil.copyfile(source, fresh)
    fresh.replace(path)


def _is(path: Path, entry: Entry) -> bool:
    try:
        if isinstance(entry, Link):
            return path.is_symlink() and str(path.readlink()) == entry.target
        status = path.stat()
        if isinstance(entry, Copy):
            return filecmp.cmp(path, entry.source, shallow=False)
        if isinstance(entry, Char):
            return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(entry.major, entry.minor)
        return not path.is_symlink() and path.read_text() == entry
    except OSError:
        return False


def _lowest(used: set[int]) -> int:
    return next(number for number in range(len(used) + 1) if number not in used)


def _pci(gpu: FakeGpu, numbers: Numbers, major: Mapping[str, int]) -> dict[str, Entry]:
    """The card in sysfs, and its DRM device files."""
    home = f"devices/pci{gpu.pci[:7]}/{gpu.pci}"
    driver = gpu.product.driver
    found: dict[str, Entry] = {
        "vendor": f"0x{VENDOR_IDS[gpu.vendor]}\n",
        "device": f"0x{gpu.product.product_id}\n",
        "class": f"{PCI_CLASS[gpu.vendor]}\n",
        "numa_node": f"{gpu.numa}\n",
        "uevent": f"DRIVER={driver}\nPCI_SLOT_NAME={gpu.pci}\n",
        "driver": Link(f"../../../bus/pci/drivers/{driver}"),
        "subsystem": Link("../../../bus/pci"),
    }
    found |= _vendor_files(gpu, numbers)
    nodes: dict[str, Entry] = {}
    links: dict[str, Entry] = {
        f"bus/pci/devices/{gpu.pci}": Link(f"../../../{home}"),
        f"bus/pci/drivers/{driver}/module": Link(f"../../../../module/{driver}"),
        f"module/{driver}/initstate": "live\n",
    }
    for name, minor in (
        (f"card{numbers.drm}", numbers.drm),
        (f"renderD{RENDER + numbers.drm}", RENDER + numbers.drm),
    ):
        found[f"drm/{name}/dev"] = f"{major['drm']}:{minor}\n"
        found[f"drm/{name}/device"] = Link("../..")
        links[f"class/drm/{name}"] = Link(f"../../{home}/drm/{name}")
        nodes[f"dev/dri/{name}"] = Char(major["drm"], minor)
    below = {f"{home}/{name}": entry for name, entry in found.items()} | links
    return {f"sys/{name}": entry for name, entry in below.items()} | nodes


def _vendor_files(gpu: FakeGpu, numbers: Numbers) -> dict[str, Entry]:
    if gpu.product.driver == "amdgpu":
        return {
            "unique_id": f"{gpu.uuid}\n",
            "product_name": f"{gpu.model}\n",
            "mem_info_vram_total": f"{gpu.memory}\n",
            "mem_info_vram_used": f"{int(gpu.memory * (gpu.busy or 0))}\n",
            "ras/umc_err_count": f"ue: {gpu.signs.ecc}\nce: 0\n",
            "gpu_busy_percent": f"{round((gpu.busy or 0) * 100)}\n",
            "hwmon/hwmon0/temp1_input": f"{(gpu.figures.temperature or 0) * 1000:.0f}\n",
            "hwmon/hwmon0/power1_average": f"{(gpu.figures.power or 0) * 1_000_000:.0f}\n",
        }
    if gpu.product.driver == "i915":
        return {f"drm/card{numbers.drm}/lmem_total_bytes": f"{gpu.memory}\n"}
    return {}


def _nvidia(gpu: FakeGpu, numbers: Numbers, major: Mapping[str, int]) -> dict[str, Entry]:
    """The module's own files, and those of its MIG devices: of each profile one GPU and compute instance."""
    minor = numbers.minor
    found: dict[str, Entry] = {
        f"proc/driver/nvidia/gpus/{gpu.pci}/information": (
            f"Model: \t\t {gpu.model}\nIRQ:   \t\t 0\nGPU UUID: \t {gpu.uuid}\n"
            f"Video BIOS: \t 92.00.19.00.01\nBus Type: \t PCIe\nDMA Size: \t 47 bits\n"
            f"DMA Mask: \t 0x7fffffffffff\nBus Location: \t {gpu.pci}\nDevice Minor: \t {minor}\n"
            "GPU Excluded:\t No\n"
        ),
        f"dev/nvidia{minor}": Char(major["nvidia"], minor),
    }
    for mig in gpu.mig:
        access = f"proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{mig.gi}"
        for place, part in enumerate(("access", f"ci{mig.ci}/access")):
            cap = capability(minor, mig, place)
            found[f"{access}/{part}"] = f"DeviceFileMinor: {cap}\nDeviceFileMode: 292\n"
            found[f"dev/nvidia-caps/nvidia-cap{cap}"] = Char(major["nvidia-caps"], cap)
    return found


def capability(minor: int, part: Mig, place: int) -> int:
    """Number of the file of a part's GPU instance (place 0) or compute instance; 1 and 2 are the module's."""
    return 3 + minor * 32 + part.gi * 2 + place


def _facts(gpu: FakeGpu) -> Facts:
    """What the files above have no place for: Intel's cards tell no name and xe no memory."""
    told = {
        "nvidia": True,
        "amd": bool(re.fullmatch(r"[0-9a-f]*[1-9a-f][0-9a-f]*", gpu.uuid)),
        "intel": False,
    }
    return Facts(
        uuid="" if told[gpu.vendor] else gpu.uuid,
        model=gpu.model if gpu.vendor == "intel" else "",
        memory=gpu.memory if gpu.product.driver in ("nvidia", "xe") else 0,
        architecture=gpu.product.architecture,
        cuda_version=CUDA_VERSION if gpu.vendor == "nvidia" else "",
        signs=gpu.signs,
        figures=gpu.figures,
        processes=gpu.processes,
        cut=bool(gpu.mig),
        mig=gpu.mig,
        links=gpu.links,
    )
