from pathlib import Path

from lxdpy.host.lxc.prepare import note, unstage
from lxdpy.host.lxc.spec import DeviceNode
from lxdpy.host.lxc.uevent import facts_of, message
from tests.lxdpy.host.devices.usb_files import plugged

LINE = [
    "DEVPATH=/devices/usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0",
    "SUBSYSTEM=tty",
    "MAJOR=188",
    "MINOR=0",
    "DEVNAME=serial",
]


def test_a_device_is_described_by_sysfs_and_named_as_inside(tmp_path: Path) -> None:
    root = plugged(tmp_path)
    assert facts_of(root.sys, "c", 188, 0, "/dev/serial") == LINE
    assert facts_of(root.sys, "c", 188, 1, "/dev/serial") == []
    assert facts_of(root.sys, "b", 188, 0, "/dev/serial") == []


def test_a_message_is_as_the_kernel_writes_it() -> None:
    assert message("remove", ["DEVPATH=/devices/x", "SUBSYSTEM=usb"]) == (
        b"remove@/devices/x\0ACTION=remove\0DEVPATH=/devices/x\0SUBSYSTEM=usb\0"
    )


def test_what_is_said_of_a_device_is_known_when_it_has_gone_but_once(tmp_path: Path) -> None:
    root, node = plugged(tmp_path), DeviceNode("/dev/serial", 188, 0)
    assert note(node, tmp_path, root.sys) == LINE
    (root.sys / "dev/char/188:0").unlink()
    assert unstage(node, tmp_path) == LINE
    assert unstage(node, tmp_path) == []
