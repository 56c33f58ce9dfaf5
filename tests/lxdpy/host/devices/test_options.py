"""Options of devices: what each type takes, and which driver is found for them."""

import pytest

from cluster.errors import Invalid
from lxdpy.host.devices.disk import is_root
from lxdpy.host.devices.registry import devices
from lxdpy.host.network.fake import FakeBridge

DEVICES = devices(FakeBridge())
ROOT = {"type": "disk", "path": "/", "pool": "default", "size": "10GiB"}


@pytest.mark.parametrize(
    "options",
    [
        {"type": "none"},
        ROOT,
        {"type": "disk", "path": "/mnt", "source": "/srv/data", "readonly": "true", "shift": "true"},
        {"type": "disk", "path": "/data", "source": "vol1", "pool": "default"},
        {"type": "nic", "network": "lxdbr0", "name": "eth0", "hwaddr": "00:16:3e:00:00:01"},
        {"type": "nic", "nictype": "bridged", "parent": "br0", "security.mac_filtering": "true"},
        {"type": "nic", "nictype": "p2p", "ipv4.routes": "10.1.0.0/16,10.2.0.0/16"},
        {"type": "nic", "network": "lxdbr0", "ipv4.address": "10.0.0.7", "security.ipv4_filtering": "true"},
        {"type": "unix-char", "source": "/dev/ttyS0", "path": "/dev/modem", "required": "false"},
        {"type": "unix-block", "path": "/dev/vdb", "uid": "1000", "gid": "6", "mode": "0600"},
        {"type": "unix-char", "path": "/dev/x", "major": "10", "minor": "0"},
        {"type": "usb"},
        {"type": "infiniband", "nictype": "sriov", "parent": "ib0", "hwaddr": "80" + ":00" * 19},
        {"type": "nic", "nictype": "macvlan", "parent": "eth0", "gvrp": "false"},
        {"type": "nic", "nictype": "physical", "parent": "eth0", "mtu": "9000", "vlan": "7", "gvrp": "true"},
        {"type": "disk", "path": "/mnt", "source": "tmpfs:", "size": "1MiB"},
        {"type": "nic", "network": "lxdbr0", "vlan": "none", "vlan.tagged": "5, 100-105"},
        {"type": "nic", "nictype": "routed", "ipv4.address": "10.0.0.7,10.0.0.8", "ipv4.host_table": "100"},
        {
            "type": "nic",
            "nictype": "routed",
            "parent": "eth0",
            "ipv6.address": "fd00::7",
            "ipv6.gateway": "none",
        },
        {"type": "nic", "nictype": "p2p", "limits.ingress": "10Mbit", "limits.egress": "20Mbit"},
        {"type": "nic", "network": "lxdbr0", "ipv4.routes.external": "10.1.0.0/16"},
        {
            "type": "usb",
            "vendorid": "046D",
            "productid": "c52b",
            "busnum": "1",
            "devnum": "7",
            "serial": "A 1",
        },
        {"type": "unix-hotplug", "vendorid": "046d", "subsystem": "tty", "ownership.inherit": "true"},
    ],
)
def test_lxds_options_are_taken(options: dict[str, str]) -> None:
    DEVICES.driver_for(options).check(options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"type": "none", "path": "/"}, "path"),
        ({"type": "disk", "path": "/"}, "pool"),
        ({**ROOT, "source": "/x"}, "source"),
        ({**ROOT, "path": "//", "shift": "true"}, "shift"),
        ({"type": "disk", "source": "/x"}, "path"),
        ({"type": "disk", "path": "/mnt"}, "source"),
        ({"type": "disk", "path": "/mnt", "source": "x"}, "source"),
        ({"type": "disk", "path": "/mnt", "source": "/a/../../etc"}, "source"),
        ({"type": "disk", "path": "/mnt/../..", "source": "/x"}, "path"),
        ({"type": "disk", "path": "mnt", "source": "/x"}, "path"),
        ({"type": "disk", "path": "/mnt", "pool": "default", "source": "a/b"}, "source"),
        ({"type": "disk", "path": "/mnt", "source": "/x", "readonly": "2"}, "readonly"),
        ({"type": "disk", "path": "/mnt", "source": "/x", "size": "1GiB"}, "size"),
        ({"type": "disk", "path": "/mnt", "source": "cephfs:fs/x"}, "source"),
        ({"type": "disk", "path": "/mnt", "source": "/x", "propagation": "some"}, "propagation"),
        ({"type": "disk", "path": "/mnt", "source": "/x", "limits.read": "fast"}, "limits.read"),
        ({"type": "disk", "path": "/mnt", "source": "tmpfs:", "limits.read": "1MB"}, "limits.read"),
        ({"type": "disk", "path": "/mnt", "source": "tmpfs:", "shift": "true"}, "shift"),
        ({"type": "nic", "nictype": "bridged"}, "network"),
        ({"type": "nic", "network": "lxdbr0", "parent": "br0"}, "network"),
        ({"type": "nic", "network": "lxdbr0", "nictype": "bridged"}, "nictype"),
        ({"type": "nic", "network": "lxdbr0", "hwaddr": "x"}, "hwaddr"),
        ({"type": "nic", "network": "lxdbr0", "name": "a/b"}, "name"),
        ({"type": "nic", "network": "lxdbr0", "mtu": "1"}, "mtu"),
        ({"type": "nic", "network": "lxdbr0", "colour": "red"}, "colour"),
        ({"type": "nic", "network": "lxdbr0", "limits.egress": "1kbit"}, "limits.egress"),
        ({"type": "nic", "network": "lxdbr0", "limits.ingress": "40Gbit"}, "limits.ingress"),
        ({"type": "nic", "network": "x", "limits.ingress": "1Mbit", "limits.max": "1Mbit"}, "limits.max"),
        ({"type": "nic", "network": "lxdbr0", "vlan": "0"}, "vlan"),
        ({"type": "nic", "network": "lxdbr0", "gvrp": "true"}, "gvrp"),
        ({"type": "nic", "network": "lxdbr0", "vlan": "7", "vlan.tagged": "5-8"}, "vlan.tagged"),
        ({"type": "nic", "network": "lxdbr0", "vlan.tagged": "8-5"}, "vlan.tagged"),
        ({"type": "nic", "network": "lxdbr0", "vlan.tagged": "7,none"}, "vlan.tagged"),
        ({"type": "nic", "nictype": "macvlan"}, "parent"),
        ({"type": "nic", "nictype": "macvlan", "parent": "eth0", "vlan": "4095"}, "vlan"),
        ({"type": "nic", "nictype": "macvlan", "parent": "eth0", "vlan.tagged": "5"}, "vlan.tagged"),
        ({"type": "nic", "nictype": "routed", "ipv4.address": "10.0.0.7", "vlan": "5"}, "vlan"),
        ({"type": "nic", "nictype": "macvlan", "parent": "eth0", "host_name": "x0"}, "host_name"),
        ({"type": "nic", "nictype": "physical", "parent": "eth0", "gvrp": "true"}, "gvrp"),
        ({"type": "nic", "nictype": "p2p", "limits.max": "1Mbit", "limits.egress": "1Mbit"}, "limits.max"),
        ({"type": "nic", "nictype": "routed", "ipv4.address": "10.0.0.7/24"}, "ipv4.address"),
        ({"type": "nic", "nictype": "routed", "ipv4.address": "10.0.0.7,10.0.0.7"}, "ipv4.address"),
        ({"type": "nic", "nictype": "routed", "ipv6.gateway": "fe80::1"}, "ipv6.gateway"),
        ({"type": "nic", "nictype": "routed", "ipv6.routes": "fd00::/64"}, "ipv6.routes"),
        ({"type": "infiniband", "parent": "ib0"}, "nictype"),
        ({"type": "infiniband", "nictype": "physical"}, "parent"),
        ({"type": "infiniband", "nictype": "physical", "parent": "ib0", "hwaddr": "0:1"}, "hwaddr"),
        ({"type": "unix-char"}, "source"),
        ({"type": "unix-char", "source": "ttyS0"}, "source"),
        ({"type": "unix-char", "path": "/dev/../etc"}, "path"),
        ({"type": "unix-char", "path": "/dev/x", "major": "10"}, "minor"),
        ({"type": "unix-block", "path": "/dev/x", "minor": "-1"}, "minor"),
        ({"type": "unix-block", "path": "/dev/x", "mode": "999"}, "mode"),
        ({"type": "unix-block", "path": "/dev/x", "uid": "root"}, "uid"),
        ({"type": "usb", "vendorid": "0x46d"}, "vendorid"),
        ({"type": "usb", "devnum": "0"}, "devnum"),
        ({"type": "unix-hotplug", "required": "true"}, "vendorid"),
        ({"type": "unix-hotplug", "subsystem": "a/b"}, "subsystem"),
        (
            {"type": "nic", "network": "lxdbr0", "security.ipv4_filtering": "true"},
            "security.ipv4_filtering",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid) as refusal:
        DEVICES.driver_for(options).check(options)
    assert refusal.value.facts["key"] == named
    assert named in refusal.value.message


@pytest.mark.parametrize(
    ("options", "type_"),
    [
        ({"type": "disk"}, "disk"),
        ({"type": "nic", "network": "x"}, "nic/bridged"),
        ({"type": "nic", "nictype": "bridged"}, "nic/bridged"),
        ({"type": "nic", "nictype": "p2p"}, "nic/p2p"),
        ({"type": "nic", "nictype": "routed"}, "nic/routed"),
        ({"type": "none"}, "none"),
    ],
)
def test_the_driver_is_found_by_type_and_kind(options: dict[str, str], type_: str) -> None:
    assert DEVICES.driver_for(options).type == type_


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    known = "disk, infiniband, nic, none, proxy, unix-block, unix-char, unix-hotplug, usb"
    with pytest.raises(Invalid, match=f'Unsupported device type "floppy"; known: {known}'):
        DEVICES.driver_for({"type": "floppy"})
    with pytest.raises(Invalid, match='Unsupported device type ""'):
        DEVICES.driver_for({})
    with pytest.raises(
        Invalid, match=r'nictype "x" of a nic device; known: bridged, macvlan, p2p, physical, routed'
    ):
        DEVICES.driver_for({"type": "nic", "nictype": "x"})
    with pytest.raises(
        Invalid, match=r'"sriov" of a nic device \(lend the interface .*=physical\); known: bridged'
    ):
        DEVICES.driver_for({"type": "nic", "nictype": "sriov"})
    with pytest.raises(Invalid, match=r'device type "tpm" \(no TPM is emulated for instances\); known: disk'):
        DEVICES.driver_for({"type": "tpm"})
    with pytest.raises(Invalid, match='Unsupported nictype "ovn"'):
        DEVICES.driver_for({"type": "nic", "network": "x"}, network_type="ovn")


def test_the_root_disk_is_the_one_at_slash() -> None:
    assert is_root(ROOT)
    assert is_root({**ROOT, "path": "//"})
    assert not is_root({"type": "disk", "path": "/mnt"})
    assert not is_root({"type": "disk"})
    assert not is_root({"type": "nic", "path": "/"})


def test_every_driver_documents_its_own_type() -> None:
    for driver in DEVICES.drivers:
        assert driver.options.find("type") is not None, driver.type
        assert all(len(key.doc) > 5 for key in driver.options.keys), driver.type
