"""dnsmasq's command line, and how a running one is told from others."""

from pathlib import Path

from lxdpy.host.network.dnsmasq import Dnsmasq, Files, arguments
from lxdpy.host.network.driver import Network

FOLDER = Path("/x/networks/br0")
FOUR = {"ipv4.address": "10.0.0.1/24"}
SIX = {"ipv6.address": "fd42::1/64"}


def words(config: dict[str, str]) -> list[str]:
    return arguments(Network(name="br0", config=config), Files(FOLDER))


def test_it_listens_on_its_own_bridge_only() -> None:
    made = words(FOUR)
    assert {
        "--bind-interfaces",
        "--interface=br0",
        "--except-interface=lo",
        "--listen-address=10.0.0.1",
    } <= set(made)


def test_without_an_address_it_does_not_run() -> None:
    assert words({}) == []
    assert words({"ipv4.address": "none", "ipv6.address": "auto"}) == []


def test_leases_come_from_the_whole_subnet_or_the_ranges() -> None:
    assert "--dhcp-range=10.0.0.1,10.0.0.254,255.255.255.0,3600" in words(FOUR)
    made = words(
        {**FOUR, "ipv4.dhcp.ranges": "10.0.0.5-10.0.0.9, 10.0.0.20-10.0.0.29", "ipv4.dhcp.expiry": "2h"}
    )
    assert [word for word in made if word.startswith("--dhcp-range")] == [
        "--dhcp-range=10.0.0.5,10.0.0.9,255.255.255.0,7200",
        "--dhcp-range=10.0.0.20,10.0.0.29,255.255.255.0,7200",
    ]


def test_a_lease_can_last_for_ever_but_not_for_seconds() -> None:
    assert any(word.endswith(",infinite") for word in words({**FOUR, "ipv4.dhcp.expiry": "-1"}))
    assert any(word.endswith(",120") for word in words({**FOUR, "ipv4.dhcp.expiry": "5s"}))


def test_dhcp_can_be_off_while_names_resolve() -> None:
    made = words({**FOUR, "ipv4.dhcp": "false"})
    assert not [word for word in made if word.startswith("--dhcp-range")]
    assert "--domain=lxd" in made


def test_ipv6_is_announced_with_or_without_leases() -> None:
    assert "--dhcp-range=::,constructor:br0,ra-stateless,ra-names" in words(SIX)
    assert "--dhcp-range=::,constructor:br0,ra-only" in words({**SIX, "ipv6.dhcp": "false"})
    stateful = words({**SIX, "ipv6.dhcp.stateful": "true"})
    assert "--dhcp-range=fd42::2,fd42::ffff:ffff:ffff:ffff,64,3600" in stateful


def test_names_of_clients_count_only_in_dynamic_mode() -> None:
    assert "--dhcp-ignore-names=tag:!known" in words(FOUR)
    assert not [word for word in words({**FOUR, "dns.mode": "dynamic"}) if "ignore-names" in word]
    none = words({**FOUR, "dns.mode": "none"})
    assert "--dhcp-ignore-names" in none
    assert not [word for word in none if word.startswith("--domain=")]


def test_a_smaller_mtu_is_announced() -> None:
    assert "--dhcp-option-force=26,1400" in words({**FOUR, "bridge.mtu": "1400"})
    assert not [word for word in words(FOUR) if "option-force=26" in word]


def test_a_changed_raw_text_changes_the_command_line() -> None:
    one, two = words({**FOUR, "raw.dnsmasq": "a"}), words({**FOUR, "raw.dnsmasq": "b"})
    assert one != two
    assert "--conf-file=/dev/null" in words(FOUR)


def test_a_pid_of_another_program_is_not_taken_for_ours(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.pid.write_text("77")
    process = tmp_path / "proc/77"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"dnsmasq\0--pid-file=/another\0")
    server = Dnsmasq(files, tmp_path / "proc")
    assert not server._running()
    for name in ("77", "self"):
        (tmp_path / "proc" / name / "ns").mkdir(parents=True)
        (tmp_path / "namespace").touch()
        (tmp_path / "proc" / name / "ns/net").hardlink_to(tmp_path / "namespace")
    (process / "cmdline").write_bytes(f"dnsmasq\0--pid-file={files.pid}\0".encode())
    assert server._running()
    (process / "ns/net").unlink()
    (process / "ns/net").touch()
    assert not server._running()
    files.pid.write_text("nonsense")
    assert not server._running()
