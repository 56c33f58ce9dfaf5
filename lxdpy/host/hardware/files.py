"""Reading /sys: what is missing, unreadable or of another form counts as empty, for drivers differ."""

import re
from pathlib import Path

PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def number(path: Path, default: int = 0) -> int:
    """A whole number, decimal or 0x…"""
    try:
        return int(text(path), 0)
    except ValueError:
        return default


def entries(path: Path) -> list[Path]:
    """What is in a folder, by name, numbers by value (cpu2 before cpu10)."""
    try:
        return sorted(path.iterdir(), key=lambda entry: _natural(entry.name))
    except OSError:
        return []


def numbers(ranges: str) -> list[int]:
    """The kernel's list form: "0-3,8"."""
    found: list[int] = []
    for part in ranges.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdigit():
            found += range(int(low), int(high or low) + 1)
    return found


def link_name(path: Path) -> str:
    """The last part of where a symlink points; "" if there is none."""
    try:
        return path.readlink().name
    except OSError:
        return ""


def ancestors(device: Path) -> list[Path]:
    """A device's folder and those of what it hangs on, nearest first."""
    here = device.resolve()
    return [here, *here.parents]


def pci_address(device: Path) -> str:
    """Of the PCI device that a device is, or hangs on; "" for none."""
    return next((folder.name for folder in ancestors(device) if PCI_ADDRESS.fullmatch(folder.name)), "")


def usb_address(device: Path) -> str:
    """ "bus:device" of the USB device that a device hangs on; "" for none."""
    for folder in ancestors(device):
        if (folder / "busnum").exists() and (folder / "devnum").exists():
            return f"{number(folder / 'busnum')}:{number(folder / 'devnum')}"
    return ""


def numa_node(device: Path) -> int:
    """0 where the kernel says -1: no node known."""
    for folder in ancestors(device):
        if (folder / "numa_node").exists():
            return max(number(folder / "numa_node"), 0)
    return 0


def driver(device: Path, release: str) -> tuple[str, str]:
    """Name and version; `release` is the kernel's, the version of drivers that have none of their own."""
    name = link_name(device / "driver")
    return name, (text(device / "driver/module/version") or release) if name else ""


def kernel_release(proc: Path) -> str:
    return text(proc / "sys/kernel/osrelease")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
