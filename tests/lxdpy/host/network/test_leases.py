"""Static entries written for dnsmasq, and leases read back."""

from pathlib import Path

from lxdpy.host.network.driver import Host, Lease, Network
from lxdpy.host.network.leases import eui64, file_name, leases_of, line_of, write_host, write_hosts

C1 = Host(instance="default/c1", device="eth0", hwaddr="00:16:3E:00:00:01", ipv4="10.0.0.7")
C2 = Host(instance="a.b/c2", device="eth0", hwaddr="00:16:3e:00:00:02")
NETWORK = Network(name="br0", config={"ipv4.address": "10.0.0.1/24", "ipv6.address": "fd42::1/64"})


def test_an_entry_is_a_line_of_mac_addresses_and_name() -> None:
    assert line_of(C1, "managed") == "00:16:3e:00:00:01,10.0.0.7,c1\n"
    six = Host(instance="default/c1", device="eth0", hwaddr="00:16:3e:00:00:01", ipv6="fd42::7")
    assert line_of(six, "managed") == "00:16:3e:00:00:01,[fd42::7],c1\n"
    assert line_of(C1, "dynamic") == "00:16:3e:00:00:01,10.0.0.7\n"


def test_names_of_entries_cannot_collide() -> None:
    names = {file_name(*pair) for pair in [("a/b", "c"), ("a/b.c", "d"), ("a/b", "c.d"), ("a/b", "c/d")]}
    assert len(names) == 4
    assert not any("/" in name or name.startswith((".", "#")) for name in names)


def test_only_a_changed_or_removed_entry_wants_a_reread(tmp_path: Path) -> None:
    assert not write_host(tmp_path, C1, "managed")
    assert not write_host(tmp_path, C1, "managed")
    moved = Host(instance="default/c1", device="eth0", hwaddr="00:16:3e:00:00:01", ipv4="10.0.0.8")
    assert write_host(tmp_path, moved, "managed")
    assert not write_hosts(tmp_path, [moved, C2], "managed")
    assert write_hosts(tmp_path, [C2], "managed")
    assert [path.name for path in tmp_path.iterdir()] == [file_name(C2.instance, C2.device)]
    assert not write_hosts(tmp_path / "none", [], "managed")


def test_an_entry_that_goes_while_leases_are_read_is_none(tmp_path: Path) -> None:
    write_hosts(tmp_path, [C1], "managed")
    (tmp_path / "gone.eth0").symlink_to(tmp_path / "nowhere")  # is listed, but not there
    found = leases_of(NETWORK, tmp_path, tmp_path / "leases")
    assert [lease.address for lease in found if lease.type == "static"] == ["10.0.0.7"]


def test_leases_are_gateways_then_static_then_given_out(tmp_path: Path) -> None:
    write_hosts(tmp_path / "hosts", [C1, C2], "managed")
    (tmp_path / "leases").write_text(
        "1763890000 00:16:3e:00:00:01 10.0.0.7 c1 *\n"
        "1763890000 00:16:3e:00:00:02 10.0.0.99 * 01:00:16:3e:00:00:02\n"
        "1763890000 52:54:00:00:00:09 10.0.0.50 guest *\n"
        "duid 00:01:00:01:2e:00:00:00:00:16:3e:ff:ff:ff\n"
        "1763890000 7 fd42::99 c2 00:01:00:01:2e:00:00:00:00:16:3e:00:00:02\n"
        "broken\n"
    )
    found = leases_of(NETWORK, tmp_path / "hosts", tmp_path / "leases")
    assert [(lease.hostname, lease.address, lease.type) for lease in found] == [
        ("br0.gw", "10.0.0.1", "gateway"),
        ("br0.gw", "fd42::1", "gateway"),
        ("c2", "fd42::216:3eff:fe00:2", "dynamic"),
        ("c1", "10.0.0.7", "static"),
        ("c1", "fd42::216:3eff:fe00:1", "dynamic"),
        ("c2", "10.0.0.99", "dynamic"),
        ("guest", "10.0.0.50", "dynamic"),
        ("c2", "fd42::99", "dynamic"),
    ]
    assert found[-1] == Lease(hostname="c2", hwaddr="00:16:3e:00:00:02", address="fd42::99", type="dynamic")


def test_names_are_known_even_when_they_do_not_resolve(tmp_path: Path) -> None:
    write_hosts(tmp_path / "hosts", [C2], "none")
    (tmp_path / "leases").write_text("1763890000 00:16:3e:00:00:02 10.0.0.99 * *\n")
    four = Network(name="br0", config={"ipv4.address": "10.0.0.1/24"})
    assert leases_of(four, tmp_path / "hosts", tmp_path / "leases")[-1].hostname == "c2"


def test_a_network_without_files_has_its_own_addresses(tmp_path: Path) -> None:
    assert len(leases_of(NETWORK, tmp_path / "no", tmp_path / "nothing")) == 2


def test_the_example_of_the_standard() -> None:
    assert eui64("fe80::", "34:56:78:9a:bc:de") == "fe80::3656:78ff:fe9a:bcde"
