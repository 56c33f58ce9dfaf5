"""A host's sysfs with USB devices in it, for tests."""

from pathlib import Path

from lxdpy.host.paths import HostRoot, under

MOUSE = {"idVendor": "046d", "idProduct": "c52b", "busnum": "1", "devnum": "4", "dev": "189:3"}
SERIAL = {
    "idVendor": "0403",
    "idProduct": "6001",
    "busnum": "1",
    "devnum": "7",
    "dev": "189:6",
    "serial": "A1",
}


def plugged(folder: Path) -> HostRoot:
    """With a mouse, and a serial line that a driver has made /dev/ttyUSB0 of."""
    root = under(folder / "hardware")
    plug(root, "1-1", MOUSE)
    plug(root, "1-2", {**SERIAL, "serial": "A1"})
    line = root.sys / "devices/usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0"
    line.mkdir(parents=True)
    (root.sys / "class/tty").mkdir(parents=True)
    (line / "subsystem").symlink_to(root.sys / "class/tty")
    (line / "uevent").write_text("MAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0\n")
    (root.sys / "dev/block").mkdir()
    (root.sys / "dev/char/188:0").symlink_to(line)
    return root


def plug(root: HostRoot, place: str, facts: dict[str, str]) -> None:
    """A device at a place of the bus ("1-2")."""
    device = root.sys / "devices/usb1" / place
    device.mkdir(parents=True)
    for name, value in facts.items():
        (device / name).write_text(f"{value}\n")
    major, minor = facts["dev"].split(":")
    name = f"bus/usb/{int(facts['busnum']):03}/{int(facts['devnum']):03}"
    (device / "uevent").write_text(f"MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\nDEVTYPE=usb_device\n")
    folder = root.sys / "bus/usb/devices"
    for entry, target in (
        (device / "subsystem", root.sys / "bus/usb"),
        (folder / place, device),
        (root.sys / "dev/char" / facts["dev"], device),
    ):
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.symlink_to(target)


def unplug(root: HostRoot, place: str) -> None:
    """Its entries go, as the kernel's do; what was in them is left lying about."""
    entry = root.sys / "bus/usb/devices" / place
    (root.sys / "dev/char" / (entry / "dev").read_text().strip()).unlink()
    entry.unlink()
