"""Disks and their partitions. Sources: /sys/class/block, /dev/disk."""

from pathlib import Path

import msgspec

from lxdpy.host.hardware.files import entries, link_name, numa_node, number, pci_address, text, usb_address
from lxdpy.host.paths import HostRoot

SECTOR = 512  # bytes; the unit of /sys/class/block/*/size, whatever the disk's own
ROTATES = 1  # LXD's value for a disk that turns at a rate nobody tells


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    device: str
    read_only: bool
    size: int
    partition: int


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    device: str  # major:minor
    read_only: bool
    size: int
    removable: bool
    numa_node: int
    block_size: int
    rpm: int
    partitions: tuple[Partition, ...]
    model: str = ""
    type: str = ""
    wwn: str = ""
    device_path: str = ""
    device_id: str = ""
    firmware_version: str = ""
    serial: str = ""
    pci_address: str = ""
    usb_address: str = ""


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's ResourcesStorage."""

    disks: tuple[Disk, ...]
    total: int  # disks and partitions


def storage(root: HostRoot) -> Storage:
    """Disks that are hardware: loop devices, device mapper and the like have no device behind them."""
    blocks = entries(root.sys / "class/block")
    found = tuple(_disk(path, root.dev) for path in blocks if (path / "device").exists())
    return Storage(disks=found, total=sum(1 + len(disk.partitions) for disk in found))


def _disk(path: Path, dev: Path) -> Disk:
    device = path / "device"
    usb = usb_address(device)
    return Disk(
        id=path.name,
        device=text(path / "dev"),
        read_only=text(path / "ro") == "1",
        size=number(path / "size") * SECTOR,
        removable=text(path / "removable") == "1",
        numa_node=numa_node(device),
        block_size=number(path / "queue/physical_block_size"),
        rpm=ROTATES if text(path / "queue/rotational") == "1" else 0,
        partitions=tuple(_partition(entry) for entry in entries(path) if (entry / "partition").exists()),
        model=text(device / "model"),
        type="usb" if usb else link_name(device / "subsystem"),
        wwn=text(path / "wwid") or text(device / "wwid"),
        device_path=_alias(dev / "disk/by-path", path.name),
        device_id=_alias(dev / "disk/by-id", path.name),
        firmware_version=text(device / "firmware_rev") or text(device / "rev"),
        serial=text(path / "serial") or text(device / "serial"),
        pci_address=pci_address(device),
        usb_address=usb,
    )


def _partition(path: Path) -> Partition:
    return Partition(
        id=path.name,
        device=text(path / "dev"),
        read_only=text(path / "ro") == "1",
        size=number(path / "size") * SECTOR,
        partition=number(path / "partition"),
    )


def _alias(folder: Path, name: str) -> str:
    """The first of udev's names for a disk."""
    return next((entry.name for entry in entries(folder) if link_name(entry) == name), "")
