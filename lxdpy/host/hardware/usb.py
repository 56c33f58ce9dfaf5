"""USB devices. Source: /sys/bus/usb/devices."""

import re
from pathlib import Path

import msgspec

from lxdpy.host.hardware.files import driver, entries, kernel_release, number, text
from lxdpy.host.paths import HostRoot

HUB = 9
CLASSES = {
    1: "Audio", 2: "Communications", 3: "Human Interface Device", 5: "Physical Interface Device",
    6: "Imaging", 7: "Printer", 8: "Mass Storage", 9: "Hub", 10: "CDC Data", 11: "Chip/SmartCard",
    13: "Content Security", 14: "Video", 15: "Healthcare", 220: "Diagnostic", 224: "Wireless",
    239: "Miscellaneous Device", 254: "Application Specific Interface", 255: "Vendor Specific Class",
}  # fmt: skip
"""usb.org, "Defined Class Codes"."""


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    class_: str = msgspec.field(name="class")
    class_id: int
    driver: str
    driver_version: str
    number: int
    subclass: str
    subclass_id: int


class Device(msgspec.Struct, frozen=True, kw_only=True):
    bus_address: int
    device_address: int
    interfaces: tuple[Interface, ...]
    vendor: str
    vendor_id: str
    product: str
    product_id: str
    speed: float  # Mbit/s


class Usb(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's ResourcesUSB."""

    devices: tuple[Device, ...]
    total: int


def usb(root: HostRoot) -> Usb:
    """All but hubs. Devices are named by where they are plugged ("1-2.3"), their interfaces "1-2.3:1.0"."""
    folder, release = root.sys / "bus/usb/devices", kernel_release(root.proc)
    paths = entries(folder)
    found = []
    for path in paths:
        if ":" in path.name or not (path / "idVendor").exists():
            continue
        parts = [_interface(entry, release) for entry in paths if entry.name.startswith(f"{path.name}:")]
        others = tuple(part for part in parts if part.class_id != HUB)
        if others:
            found.append(_device(path, others))
    return Usb(devices=tuple(found), total=len(found))


def _device(path: Path, interfaces: tuple[Interface, ...]) -> Device:
    speed = text(path / "speed")
    return Device(
        bus_address=number(path / "busnum"),
        device_address=number(path / "devnum"),
        interfaces=interfaces,
        vendor=text(path / "manufacturer"),
        vendor_id=text(path / "idVendor"),
        product=text(path / "product"),
        product_id=text(path / "idProduct"),
        speed=float(speed) if re.fullmatch(r"\d+(\.\d+)?", speed) else 0.0,
    )


def _interface(path: Path, release: str) -> Interface:
    name, version = driver(path, release)
    class_id = _hexadecimal(path / "bInterfaceClass")
    return Interface(
        class_=CLASSES.get(class_id, ""),
        class_id=class_id,
        driver=name,
        driver_version=version,
        number=_hexadecimal(path / "bInterfaceNumber"),
        subclass="",
        subclass_id=_hexadecimal(path / "bInterfaceSubClass"),
    )


def _hexadecimal(path: Path) -> int:
    value = text(path)
    return int(value, 16) if re.fullmatch(r"[0-9a-fA-F]+", value) else 0
