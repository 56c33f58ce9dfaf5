"""What forwards may say, and the firewall's rules that come of it."""

import pytest

from cluster.errors import Invalid
from lxdpy.host.network.driver import Network
from lxdpy.host.network.nftables import rules_of
from lxdpy.resources.networks.forwarding import address_of, check, host_forwards
from lxdpy.resources.networks.model import Forward, ForwardPort, NetworkMember

CONFIG = {"ipv4.address": "10.9.0.1/24", "ipv6.address": "fd42::1/64"}
HERE = "192.0.2.7"


def port(listen: str, target: str = "", to: str = "10.9.0.5", protocol: str = "tcp") -> ForwardPort:
    return ForwardPort(protocol, listen, to, target)


def rules(listen: str, forward: Forward) -> list[str]:
    own = NetworkMember(forwards={listen: forward})
    text = rules_of(Network(name="br0", config=CONFIG, forwards=host_forwards(own)))
    return [line.strip() for line in text.splitlines() if "dnat" in line and "hook" not in line]


@pytest.mark.parametrize(
    ("ports", "why"),
    [
        ([port("80", protocol="sctp")], "Invalid port protocol in port specification 0"),
        ([port("80", to="10.8.0.5")], "Target address is not within the network subnet"),
        ([port("80", to="fd42::5")], "Target address is not within the network subnet"),
        ([port("80", to="nowhere")], '"nowhere" is not an IP address'),
        ([port("80"), port("70-90")], 'Duplicate listen port 80 for protocol "tcp" in port specification 1'),
        ([port("81-83", "90-91")], "Mismatch of listen port\\(s\\) and target port\\(s\\) count"),
        ([port("1-2000", "1-2000")], "At most 1024 ports"),
        ([port("")], "Missing listen port"),
        ([port("0")], 'Invalid port "0"'),
        ([port("90-80")], 'Invalid port "90-80"'),
        ([port("http")], 'Invalid port "http"'),
    ],
)
def test_what_could_not_be_is_refused(ports: list[ForwardPort], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check(HERE, Forward(ports=tuple(ports)), CONFIG)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"target_address": "8.8.8.8"}, "Default target address is not within the network subnet"),
        ({"target_address": "x"}, "target_address"),
        ({"nosuch": "x"}, "nosuch"),
    ],
)
def test_so_is_where_all_else_goes(config: dict[str, str], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check(HERE, Forward(config=config), CONFIG)


def test_a_network_takes_forwards_of_the_addresses_it_has() -> None:
    with pytest.raises(Invalid, match="no IPv6 address"):
        check("2001:db8::7", Forward(), {**CONFIG, "ipv6.address": "none"})


def test_addresses_are_known_by_their_usual_spelling() -> None:
    assert address_of("listen address", "2001:DB8::0:7") == "2001:db8::7"
    with pytest.raises(Invalid, match="listen address"):
        address_of("listen address", "10.0.0.0/24")


def test_a_port_may_be_listened_at_for_each_protocol_and_routed_subnets_be_reached() -> None:
    ports = (port("53", to="10.7.0.5"), port("53", to="10.7.0.5", protocol="udp"))
    check(HERE, Forward(ports=ports), CONFIG | {"ipv4.routes": "10.7.0.0/24"})


def test_ports_come_before_all_else() -> None:
    ports = (port("80", "8080"), port("90-92,95"), port("1-2", "11-12"))
    found = rules(HERE, Forward(config={"target_address": "10.9.0.6"}, ports=ports))
    there = [
        "ip daddr 192.0.2.7 tcp dport { 80 } dnat ip to 10.9.0.5:8080",
        "ip daddr 192.0.2.7 tcp dport { 90-92, 95 } dnat ip to 10.9.0.5",
        "ip daddr 192.0.2.7 tcp dport { 1 } dnat ip to 10.9.0.5:11",
        "ip daddr 192.0.2.7 tcp dport { 2 } dnat ip to 10.9.0.5:12",
        "ip daddr 192.0.2.7 dnat ip to 10.9.0.6",
    ]
    back = [f"ip saddr {to} ip daddr {to} ct status dnat masquerade" for to in ("10.9.0.5", "10.9.0.6")]
    assert found == [*back, *there, *there]


def test_ipv6_has_its_own_words() -> None:
    (back, there, _) = rules("2001:db8::7", Forward(ports=(port("80", "8080", to="fd42::5"),)))
    assert there == "ip6 daddr 2001:db8::7 tcp dport { 80 } dnat ip6 to [fd42::5]:8080"
    assert back.startswith("ip6 saddr fd42::5 ")


def test_without_forwards_nothing_is_sent_on() -> None:
    assert rules(HERE, Forward()) == []
