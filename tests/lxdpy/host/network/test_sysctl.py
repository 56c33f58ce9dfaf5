"""Kernel settings, on a made-up /proc."""

import os
from pathlib import Path

from lxdpy.host.network import sysctl


def setting(proc: Path, name: str, value: str) -> Path:
    path = proc / "sys/net" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value + "\n")
    return path


def test_a_setting_that_is_right_is_not_written(tmp_path: Path) -> None:
    path = setting(tmp_path, "ipv4/ip_forward", "1")
    os.utime(path, (1, 1))
    assert not sysctl.put(tmp_path, "ipv4/ip_forward", "1")
    assert path.stat().st_mtime == 1
    assert sysctl.put(tmp_path, "ipv4/ip_forward", "0")
    assert path.read_text() == "0"


def test_a_kernel_without_ipv6_is_let_be(tmp_path: Path) -> None:
    sysctl.prepare_bridge(tmp_path, "br0", ipv6=True)
    assert not sysctl.put(tmp_path, "ipv6/conf/br0/autoconf", "0")


def test_a_forwarding_host_goes_on_hearing_its_routers(tmp_path: Path) -> None:
    heard = setting(tmp_path, "ipv6/conf/eth0/accept_ra", "1")
    deaf = setting(tmp_path, "ipv6/conf/eth1/accept_ra", "0")
    forwarding = setting(tmp_path, "ipv6/conf/all/forwarding", "0")
    sysctl.forward_ipv6(tmp_path)
    assert (heard.read_text(), deaf.read_text(), forwarding.read_text()) == ("2", "0\n", "1")


def test_an_interface_that_goes_while_it_is_looked_at_keeps_nothing_from_being_set(tmp_path: Path) -> None:
    """As those of instances do all the time."""
    (tmp_path / "sys/net/ipv6/conf/veth0").mkdir(parents=True)  # was found, and has nothing any more
    forwarding = setting(tmp_path, "ipv6/conf/all/forwarding", "0")
    sysctl.forward_ipv6(tmp_path)
    assert forwarding.read_text() == "1"


def test_a_bridge_without_ipv6_has_it_switched_off(tmp_path: Path) -> None:
    off = setting(tmp_path, "ipv6/conf/br0/disable_ipv6", "0")
    sysctl.prepare_bridge(tmp_path, "br0", ipv6=False)
    assert off.read_text() == "1"
    sysctl.prepare_bridge(tmp_path, "br0", ipv6=True)
    assert off.read_text() == "0"
