"""PCI devices. Source: /sys/bus/pci/devices."""

from pathlib import Path

import msgspec

from lxdpy.host.gpu.pci_ids import PciIds
from lxdpy.host.hardware.files import driver, entries, kernel_release, link_name, numa_node, text
from lxdpy.host.paths import HostRoot

# Vital product data: PCI Local Bus Specification 2.2, appendix I.
VPD_NAME, VPD_READ_ONLY = 0x82, 0x90
LARGE = 0x80  # bit of a tag with a two-byte length


class Vpd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    product_name: str = ""
    entries: dict[str, str] = {}


class Device(msgspec.Struct, frozen=True, kw_only=True):
    driver: str
    driver_version: str
    numa_node: int
    pci_address: str
    vendor: str
    vendor_id: str
    product: str
    product_id: str
    iommu_group: int
    vpd: Vpd


class Pci(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's ResourcesPCI."""

    devices: tuple[Device, ...]
    total: int


def pci(root: HostRoot, ids: PciIds | None = None) -> Pci:
    names, release = ids or PciIds.of_this_host(), kernel_release(root.proc)
    found = tuple(_device(path, names, release) for path in entries(root.sys / "bus/pci/devices"))
    return Pci(devices=found, total=len(found))


def _device(path: Path, names: PciIds, release: str) -> Device:
    vendor, product = (text(path / field).removeprefix("0x") for field in ("vendor", "device"))
    name, version = driver(path, release)
    group = link_name(path / "iommu_group")
    return Device(
        driver=name,
        driver_version=version,
        numa_node=numa_node(path),
        pci_address=path.name,
        vendor=names.vendor(vendor),
        vendor_id=vendor,
        product=names.product(vendor, product),
        product_id=product,
        iommu_group=int(group) if group.isdigit() else 0,
        vpd=parse_vpd(_bytes(path / "vpd")),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # many cards have the file and answer with an error
        return b""


def parse_vpd(data: bytes) -> Vpd:
    """The product's name and the fields of the read-only part; a broken rest is dropped."""
    name, found, at = "", {}, 0
    while at + 3 <= len(data) and data[at] & LARGE:
        tag, size = data[at], int.from_bytes(data[at + 1 : at + 3], "little")
        body = data[at + 3 : at + 3 + size]
        if tag == VPD_NAME:
            name = _words(body)
        elif tag == VPD_READ_ONLY:
            found = _fields(body)
        at += 3 + size
    return Vpd(product_name=name, entries=found)


def _fields(body: bytes) -> dict[str, str]:
    """Two letters, a length, a value; "RV" is the checksum and what is reserved."""
    found, at = {}, 0
    while at + 3 <= len(body):
        name, size = _words(body[at : at + 2]), body[at + 2]
        if name != "RV":
            found[name] = _words(body[at + 3 : at + 3 + size])
        at += 3 + size
    return found


def _words(raw: bytes) -> str:
    return raw.decode("ascii", errors="replace").strip("\0 ")
