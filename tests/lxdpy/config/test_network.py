"""Keys of managed networks: what is taken, what is refused and why."""

import pytest

from cluster.errors import Invalid
from lxdpy.config.network import check_network, interface_of, items, on

GOOD = {
    "ipv4.address": "10.0.0.1/24",
    "ipv4.nat": "true",
    "ipv4.nat.order": "after",
    "ipv4.dhcp.ranges": "10.0.0.10-10.0.0.99,10.0.0.200-10.0.0.220",
    "ipv4.dhcp.expiry": "1h",
    "ipv6.address": "fd42::1/64",
    "ipv6.dhcp.stateful": "true",
    "dns.mode": "managed",
    "bridge.mtu": "9000",
    "bridge.external_interfaces": "eth1, eth2",
    "user.note": "anything",
}


def test_lxds_keys_are_taken() -> None:
    check_network("bridge", "lxdbr0", GOOD)
    check_network("bridge", "lxdbr0", {"ipv4.address": "auto", "ipv6.address": "none"})
    check_network("bridge", "lxdbr0", {})


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"ipv4.adress": "10.0.0.1/24"}, "ipv4.adress"),
        ({"ipv4.address": "10.0.0.1"}, "ipv4.address"),
        ({"ipv4.address": "fd42::1/64"}, "ipv4.address"),
        ({"ipv4.address": "10.0.0.0/24"}, "ipv4.address"),
        ({"ipv4.address": "10.0.0.255/24"}, "ipv4.address"),
        ({"ipv6.address": "fd42::1/80"}, "ipv6.address"),
        ({"ipv4.nat": "perhaps"}, "ipv4.nat"),
        ({"ipv4.address": "10.0.0.1/24", "ipv4.dhcp.ranges": "10.0.1.2-10.0.1.9"}, "ipv4.dhcp.ranges"),
        ({"ipv4.address": "10.0.0.1/24", "ipv4.dhcp.ranges": "10.0.0.9-10.0.0.2"}, "ipv4.dhcp.ranges"),
        ({"ipv4.nat.order": "first"}, "ipv4.nat.order"),
        ({"ipv4.dhcp.ranges": "10.0.0.9"}, "ipv4.dhcp.ranges"),
        ({"bridge.mtu": "100"}, "bridge.mtu"),
        ({"bridge.hwaddr": "00:16:3e"}, "bridge.hwaddr"),
        ({"bridge.driver": "openvswitch"}, "bridge.driver"),
        ({"dns.mode": "static"}, "dns.mode"),
        ({"dns.domain": "a b"}, "dns.domain"),
    ],
)
def test_a_wrong_key_or_value_is_named(config: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_network("bridge", "lxdbr0", config)
    assert refusal.value.facts["key"] == named
    assert named in refusal.value.message


@pytest.mark.parametrize("name", ["", "a", "x" * 16, "a/b", "a b", "-br", "..", ".br", 'a"b', "a;b", "a\nb"])
def test_a_name_that_is_none_of_an_interface_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="network name"):
        check_network("bridge", name, {})


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(Invalid, match='"ovn"; known: bridge'):
        check_network("ovn", "br0", {})


def test_the_address_is_none_until_it_is_chosen() -> None:
    assert str(interface_of(GOOD, "ipv4")) == "10.0.0.1/24"
    for value in ("", "auto", "none"):
        assert interface_of({"ipv4.address": value}, "ipv4") is None
    assert interface_of({}, "ipv6") is None


def test_unset_booleans_have_lxds_defaults() -> None:
    assert [on({}, key) for key in ("ipv4.nat", "ipv4.dhcp", "ipv4.routing", "ipv6.dhcp.stateful")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert on({"ipv4.nat": "1"}, "ipv4.nat")


def test_lists_lose_their_blanks() -> None:
    assert items(GOOD, "bridge.external_interfaces") == ("eth1", "eth2")
    assert items({}, "ipv4.routes") == ()
