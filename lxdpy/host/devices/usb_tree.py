"""USB devices in sysfs, and the device files that their drivers have made."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lxdpy.host.hardware.files import entries, text
from lxdpy.host.paths import HostRoot

FOLDER = "bus/usb/devices"
DEEPEST = 12  # folders from a device file's up to its USB device; hubs within hubs make it no deeper


class UsbDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device; ids are four hex digits in lower case."""

    vendor: str
    product: str
    serial: str
    bus: int
    device: int
    major: int
    minor: int

    @property
    def path(self) -> str:
        return f"/dev/bus/usb/{self.bus:03}/{self.device:03}"


class DeviceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A device file that belongs to a USB device, but is not that of the device as a whole."""

    path: str
    block: bool
    major: int
    minor: int
    subsystem: str
    vendor: str
    product: str


def usb_devices(root: HostRoot) -> tuple[UsbDevice, ...]:
    """All, hubs too, by bus and number."""
    found = [device for path in entries(root.sys / FOLDER) if (device := _device(path))]
    return tuple(sorted(found, key=lambda device: (device.bus, device.device)))


def _device(path: Path) -> UsbDevice | None:
    numbers = [text(path / name) for name in ("busnum", "devnum")]
    major, _, minor = text(path / "dev").partition(":")
    if ":" in path.name or not all(number.isdigit() for number in (*numbers, major, minor)):
        return None  # an interface, or one that is just going
    return UsbDevice(
        vendor=text(path / "idVendor").lower(),
        product=text(path / "idProduct").lower(),
        serial=text(path / "serial"),
        bus=int(numbers[0]),
        device=int(numbers[1]),
        major=int(major),
        minor=int(minor),
    )


def device_files(root: HostRoot) -> tuple[DeviceFile, ...]:
    """Of all USB devices, by path."""
    found = [
        file
        for kind in ("char", "block")
        for path in entries(root.sys / "dev" / kind)
        if (file := _file(path, block=kind == "block"))
    ]
    return tuple(sorted(found, key=lambda file: file.path))


def _file(path: Path, *, block: bool) -> DeviceFile | None:
    number = re.fullmatch(r"(\d+):(\d+)", path.name)
    name = re.search(r"^DEVNAME=(\S+)$", text(path / "uevent"), re.MULTILINE)
    subsystem = os.path.basename(os.path.realpath(path / "subsystem"))
    device = next(_above(path), None)
    if not number or not name or subsystem == "usb" or device is None:
        return None
    return DeviceFile(
        path=f"/dev/{name[1]}",
        block=block,
        major=int(number[1]),
        minor=int(number[2]),
        subsystem=subsystem,
        vendor=text(device / "idVendor").lower(),
        product=text(device / "idProduct").lower(),
    )


def _above(path: Path) -> Iterator[Path]:
    """The USB device that it is part of, if any."""
    folder = path.resolve()
    for parent in [*folder.parents][:DEEPEST]:
        if (parent / "idVendor").exists():
            yield parent
