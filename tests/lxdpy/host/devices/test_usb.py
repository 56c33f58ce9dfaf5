"""USB devices and the files their drivers make: which fit, and what a container gets of them."""

import asyncio
from pathlib import Path

import pytest

from lxdpy.host.devices.driver import Seat
from lxdpy.host.devices.unix_hotplug import UnixHotplug
from lxdpy.host.devices.unix_options import DeviceMissing
from lxdpy.host.devices.usb import Usb
from lxdpy.host.paths import under
from tests.lxdpy.host.devices.usb_files import plugged, unplug


def seat(type_: str, options: dict[str, str]) -> Seat:
    return Seat(instance="default/c1", name="d", options={"type": type_, **options})


def paths(driver: Usb | UnixHotplug, **options: str) -> list[str]:
    return [node.path for node in asyncio.run(driver.start(seat(driver.type, options))).nodes]


def test_devices_are_chosen_by_all_that_is_said_of_them(tmp_path: Path) -> None:
    usb = Usb(plugged(tmp_path))
    mouse, serial = "/dev/bus/usb/001/004", "/dev/bus/usb/001/007"
    assert paths(usb) == [mouse, serial]
    assert paths(usb, vendorid="046D") == [mouse]
    assert paths(usb, vendorid="046d", productid="6001") == []
    assert paths(usb, busnum="1", devnum="7") == [serial]
    assert paths(usb, serial="A1") == [serial]
    assert paths(usb, serial="a1") == []


def test_a_device_is_given_with_its_numbers_and_owner(tmp_path: Path) -> None:
    usb = Usb(plugged(tmp_path))
    (node,) = asyncio.run(usb.start(seat("usb", {"vendorid": "0403", "gid": "20", "mode": "0664"}))).nodes
    assert (node.kind, node.major, node.minor, node.uid, node.gid, node.mode) == ("c", 189, 6, 0, 20, 0o664)


def test_a_device_that_went_is_given_no_more(tmp_path: Path) -> None:
    root = plugged(tmp_path)
    unplug(root, "1-2")
    assert paths(Usb(root)) == ["/dev/bus/usb/001/004"]
    with pytest.raises(DeviceMissing):
        paths(Usb(root), vendorid="0403", required="true")


def test_what_a_driver_made_is_known_by_its_usb_device(tmp_path: Path) -> None:
    hotplug = UnixHotplug(plugged(tmp_path))
    assert paths(hotplug, vendorid="0403", productid="6001") == ["/dev/ttyUSB0"]
    assert paths(hotplug, subsystem="tty") == ["/dev/ttyUSB0"]
    assert paths(hotplug, vendorid="0403", subsystem="block") == []
    assert paths(hotplug, vendorid="046d") == []  # the mouse itself is of type usb
    with pytest.raises(DeviceMissing):
        paths(hotplug, vendorid="046d", required="true")


def test_the_hosts_owner_is_taken_over_where_none_is_said(tmp_path: Path) -> None:
    root = plugged(tmp_path)
    root.dev.mkdir()
    options = {"vendorid": "0403", "ownership.inherit": "true", "gid": "9"}
    assert paths(UnixHotplug(root), **options) == [], "it is just coming, or going"
    (root.dev / "ttyUSB0").touch()
    (node,) = asyncio.run(UnixHotplug(root).start(seat("unix-hotplug", options))).nodes
    assert (node.uid, node.gid) == ((root.dev / "ttyUSB0").stat().st_uid, 9)


def test_a_host_without_usb_has_nothing_to_give(tmp_path: Path) -> None:
    root = plugged(tmp_path / "a")
    assert Usb(root).watched({}) == (str(root.sys / "bus/usb/devices"),)
    assert paths(Usb(under(tmp_path / "none"))) == []
    assert paths(UnixHotplug(under(tmp_path / "none")), vendorid="0403") == []
