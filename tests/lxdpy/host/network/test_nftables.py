"""Firewall rules as text; integration/test_bridge.py has the kernel take them."""

from lxdpy.host.network.driver import Network
from lxdpy.host.network.nftables import filter_of, priority_of, rules_of, table_of

FOUR = {"ipv4.address": "10.0.0.1/24"}


def test_traffic_is_masqueraded_only_when_asked() -> None:
    assert "masquerade" not in rules_of(Network(name="br0", config=FOUR))
    made = rules_of(Network(name="br0", config={**FOUR, "ipv4.nat": "true"}))
    assert "ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 masquerade" in made
    assert "ip6" not in made


def test_a_fixed_source_address_replaces_masquerading() -> None:
    config = {**FOUR, "ipv4.nat": "true", "ipv4.nat.address": "192.0.2.7"}
    made = rules_of(Network(name="br0", config=config))
    assert "snat ip to 192.0.2.7" in made
    assert "masquerade" not in made


def test_dhcp_and_dns_are_let_in_for_each_family_that_has_an_address() -> None:
    made = rules_of(Network(name="br0", config={**FOUR, "ipv6.address": "fd42::1/64"}))
    assert 'iifname "br0" meta nfproto ipv4 udp dport { 53, 67 } accept' in made
    assert 'iifname "br0" meta nfproto ipv6 udp dport { 53, 547 } accept' in made
    assert "ipv6" not in rules_of(Network(name="br0", config=FOUR))


def test_without_routing_nothing_is_forwarded() -> None:
    made = rules_of(Network(name="br0", config={**FOUR, "ipv4.routing": "false"}))
    assert 'iifname "br0" meta nfproto ipv4 reject' in made
    assert 'oifname "br0" meta nfproto ipv4 reject' in made


def test_without_the_firewall_there_is_no_filter() -> None:
    made = rules_of(Network(name="br0", config={**FOUR, "ipv4.firewall": "false", "ipv4.nat": "true"}))
    assert "chain input" not in made
    assert "chain forward" not in made
    assert "masquerade" in made


def test_a_table_is_replaced_as_a_whole() -> None:
    made = rules_of(Network(name="br0"))
    assert made.splitlines()[:3] == [
        "table inet lxdpy_br0", "delete table inet lxdpy_br0", "table inet lxdpy_br0 {",
    ]  # fmt: skip
    assert table_of("br0") == "lxdpy_br0"


def test_a_priority_is_given_at_each_port_and_again_when_routed() -> None:
    made = priority_of("prio_1", 10, {"veth0": "00:16:3e:00:00:01", "veth1": ""})
    bridged, routed = made.split("table inet lxdpy_prio_1 {")
    rule = 'iifname { "veth0", "veth1" } meta priority set 0:a'
    assert "table bridge lxdpy_prio_1 {" in bridged
    assert rule in bridged
    assert rule in routed
    assert "ether saddr { 00:16:3e:00:00:01 } meta priority set 0:a" in routed
    assert "ether saddr" not in priority_of("prio_1", 10, {"veth1": ""})


def test_a_filter_stops_other_macs_and_when_asked_other_addresses() -> None:
    plain = filter_of("nic_1", "veth0", "00:16:3e:00:00:01")
    assert 'iifname "veth0" ether saddr != 00:16:3e:00:00:01 drop' in plain
    assert "table bridge lxdpy_nic_1 {" in plain
    assert " ip saddr" not in plain
    four = filter_of("nic_1", "veth0", "00:16:3e:00:00:01", ipv4=["10.0.0.7"])
    assert "ip saddr != { 10.0.0.7 } drop" in four
    assert four.index("udp dport 67 accept") < four.index("ip saddr != {")
    assert "{ ::, fe80::/10, fd42::7 }" in filter_of("nic_1", "veth0", "00:16:3e:00:00:01", ipv6=["fd42::7"])
