"""Display devices as sysfs shows them: PCI functions of class 0x03 and the cards of the DRM subsystem."""

import re
from pathlib import Path

import msgspec

from lxdpy.host.paths import HostRoot

DISPLAY = "0x03"  # PCI base class; VGA, 3D and other controllers are its subclasses


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One display device. Empty strings stand for what it has not got."""

    path: Path  # its folder in sysfs
    address: str = ""  # PCI
    usb: str = ""  # "bus:device"
    vendor_id: str = ""  # four hex digits
    product_id: str = ""
    driver: str = ""
    driver_version: str = ""
    numa: int = -1
    card: str = ""  # "card0"
    render: str = ""  # "renderD128"
    control: str = ""  # "controlD64", of old kernels
    parent: str = ""  # address of the physical function this is a virtual one of

    @property
    def drm(self) -> str:
        """The number that LXD calls the card's id."""
        return self.card.removeprefix("card")

    def device(self, name: str) -> str:
        """`major:minor` of one of its DRM devices."""
        return text(self.path / "drm" / name / "dev")


def pci_address(written: str) -> str:
    """A full address as sysfs writes it; NVML writes domains of eight digits, and capital letters."""
    domain, _, rest = written.strip().lower().partition(":")
    return f"{domain.lstrip('0').rjust(4, '0')}:{rest}"


def text(path: Path) -> str:
    """A sysfs file without the blanks around it; empty if it is not there, or its device just left."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path, otherwise: int = 0) -> int:
    """A sysfs file that holds a number, decimal or 0x…"""
    try:
        return int(text(path), 0)
    except ValueError:
        return otherwise


def names(path: Path) -> list[str]:
    """What a folder holds, sorted; nothing if it is not there."""
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError:
        return []


def cards(root: HostRoot) -> tuple[Card, ...]:
    """All display devices in LXD's order: those with a DRM card by its name, then the rest of the PCI bus."""
    drm = root.sys / "class/drm"
    found = [
        read(root, (drm / name / "device").resolve())
        for name in names(drm)
        if re.fullmatch(r"card[0-9]+", name) and (drm / name / "dev").exists()
    ]
    known = {card.path for card in found}
    bus = root.sys / "bus/pci/devices"
    rest = [(bus / name).resolve() for name in names(bus) if text(bus / name / "class").startswith(DISPLAY)]
    return (*found, *(read(root, path) for path in rest if path not in known))


def read(root: HostRoot, path: Path) -> Card:
    """The device whose folder `path` is."""
    bus = (path / "subsystem").resolve().name
    drm = names(path / "drm")
    driver = path / "driver"
    return Card(
        path=path,
        address=pci_address(path.name) if bus == "pci" else "",
        usb=f"{text(path / 'busnum')}:{text(path / 'devnum')}" if bus == "usb" else "",
        vendor_id=text(path / "vendor").lower().removeprefix("0x"),
        product_id=text(path / "device").lower().removeprefix("0x"),
        driver=driver.resolve().name if driver.exists() else "",
        driver_version=driver_version(root, driver) if driver.exists() else "",
        numa=number(path / "numa_node", -1),
        card=_first(drm, "card"),
        render=_first(drm, "renderD"),
        control=_first(drm, "controlD"),
        parent=(path / "physfn").resolve().name if (path / "physfn").exists() else "",
    )


def driver_version(root: HostRoot, driver: Path) -> str:
    """The module's version; that of the kernel for a driver that is part of it."""
    return text(driver / "module/version") or text(root.proc / "sys/kernel/osrelease")


def _first(entries: list[str], prefix: str) -> str:
    return next((name for name in entries if re.fullmatch(prefix + "[0-9]+", name)), "")
