"""The machine as a whole: maker, firmware, chassis. Sources: /sys/class/dmi/id, /proc."""

from typing import Literal

import msgspec

from lxdpy.host.hardware.files import number, text
from lxdpy.host.paths import HostRoot

CHASSIS = {
    1: "Other", 2: "Unknown", 3: "Desktop", 4: "Low Profile Desktop", 5: "Pizza Box", 6: "Mini Tower",
    7: "Tower", 8: "Portable", 9: "Laptop", 10: "Notebook", 11: "Hand Held", 12: "Docking Station",
    13: "All In One", 14: "Sub Notebook", 15: "Space-saving", 16: "Lunch Box",
    17: "Main Server Chassis", 18: "Expansion Chassis", 19: "Sub Chassis", 20: "Bus Expansion Chassis",
    21: "Peripheral Chassis", 22: "RAID Chassis", 23: "Rack Mount Chassis", 24: "Sealed-case PC",
    25: "Multi-system", 26: "CompactPCI", 27: "AdvancedTCA", 28: "Blade", 29: "Blade Enclosing",
    30: "Tablet", 31: "Convertible", 32: "Detachable", 33: "IoT Gateway", 34: "Embedded PC",
    35: "Mini PC", 36: "Stick PC",
}  # fmt: skip
"""SMBIOS 3.6, table 17."""


class Firmware(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str
    date: str
    version: str


class Chassis(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str
    type: str
    serial: str
    version: str


class Motherboard(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str
    product: str
    serial: str
    version: str


class System(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's ResourcesSystem; a part that the firmware does not tell is null."""

    uuid: str
    vendor: str
    product: str
    family: str
    version: str
    sku: str
    serial: str
    type: Literal["physical", "virtual-machine", "container"]
    firmware: Firmware | None
    chassis: Chassis | None
    motherboard: Motherboard | None


def system(root: HostRoot) -> System:
    folder = root.sys / "class/dmi/id"

    def dmi(name: str) -> str:
        return text(folder / name)

    known = folder.is_dir()
    return System(
        uuid=dmi("product_uuid"),
        vendor=dmi("sys_vendor"),
        product=dmi("product_name"),
        family=dmi("product_family"),
        version=dmi("product_version"),
        sku=dmi("product_sku"),
        serial=dmi("product_serial"),
        type=_type(root),
        firmware=Firmware(vendor=dmi("bios_vendor"), date=dmi("bios_date"), version=dmi("bios_version"))
        if known
        else None,
        chassis=Chassis(
            vendor=dmi("chassis_vendor"),
            type=CHASSIS.get(number(folder / "chassis_type"), ""),
            serial=dmi("chassis_serial"),
            version=dmi("chassis_version"),
        )
        if known
        else None,
        motherboard=Motherboard(
            vendor=dmi("board_vendor"),
            product=dmi("board_name"),
            serial=dmi("board_serial"),
            version=dmi("board_version"),
        )
        if known
        else None,
    )


def _type(root: HostRoot) -> Literal["physical", "virtual-machine", "container"]:
    """Container managers tell the first process by its environment; hypervisors set a CPU flag."""
    if any(word.startswith("container=") for word in text(root.proc / "1/environ").split("\0")):
        return "container"
    flags = (line for line in text(root.proc / "cpuinfo").splitlines() if line.startswith("flags"))
    return "virtual-machine" if "hypervisor" in next(flags, "").split() else "physical"
