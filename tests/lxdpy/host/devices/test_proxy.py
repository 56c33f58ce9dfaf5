"""What a proxy device asks for, and what it does not take."""

import pytest

from cluster.errors import Invalid
from lxdpy.host.devices.driver import Forwarding, Seat
from lxdpy.host.devices.proxy import Proxy, nat_target
from lxdpy.host.network.redirect import Redirect, redirect_of
from lxdpy.host.proxy.addresses import Endpoint, endpoint

WEB = {"type": "proxy", "listen": "tcp:10.0.0.1:80,81", "connect": "tcp:127.0.0.1:8080"}


def seat(**options: str) -> Seat:
    return Seat(instance="default/c1", name="web", options={**WEB, **options})


def test_the_process_is_told_all_it_needs() -> None:
    driver = Proxy()
    assert isinstance(driver, Forwarding)
    options = {"listen": "unix:/run/x", "uid": "5", "mode": "0660", "security.uid": "33", "bind": "instance"}
    told = driver.forward(seat(**options))
    assert told is not None
    assert (told.bind, told.listen, told.connect) == (
        "instance",
        Endpoint("unix", "/run/x"),
        Endpoint("tcp", "127.0.0.1", (8080,)),
    )
    assert (told.owner, told.security, told.header) == ((5, 0, 0o660), (33, 0), False)
    assert driver.forward(seat(nat="true")) is None


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [
        ({"listen": ""}, "listen", "needed"),
        ({"listen": "tcp:localhost:80"}, "listen", "tcp:localhost:80"),
        ({"connect": "tcp:127.0.0.1:1,2,3"}, "connect", "3 ports"),
        ({"bind": "guests"}, "bind", "guests"),
        ({"mode": "0600"}, "mode", "0600"),
        ({"listen": "unix:@x", "uid": "1"}, "uid", "unix socket at a path"),
        ({"proxy_protocol": "true", "connect": "udp:127.0.0.1:1"}, "proxy_protocol", "udp"),
        ({"nat": "true", "proxy_protocol": "1"}, "proxy_protocol", "nat"),
        ({"nat": "true", "bind": "instance"}, "bind", "instance"),
        ({"nat": "true", "connect": "udp:10.1.1.1:1"}, "nat", "tcp to udp"),
        ({"nat": "true", "connect": "tcp:[::1]:1"}, "connect", "IP version"),
        ({"nat": "true", "listen": "tcp:0.0.0.0:80"}, "listen", "0.0.0.0"),
        ({"nat": "true", "listen": "tcp:127.0.0.1:80"}, "listen", "127.0.0.1"),
        ({"nat": "true", "security.uid": "7"}, "security.uid", "7"),
        ({"security.gid": "-1"}, "security.gid", "-1"),
    ],
)
def test_what_does_not_fit_is_named_with_its_value(options: dict[str, str], key: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        Proxy().check({**WEB, **options})
    assert refused.value.facts["key"] == key
    assert key in refused.value.message
    assert told in refused.value.message


def test_nat_goes_to_a_fixed_address_of_the_instance() -> None:
    known = ("10.9.0.7", "fd42::7")
    assert nat_target(endpoint("tcp:0.0.0.0:80"), known) == "10.9.0.7"
    assert nat_target(endpoint("tcp:[::]:80"), known) == "fd42::7"
    assert nat_target(endpoint("tcp:10.9.0.7:80"), known) == "10.9.0.7"
    with pytest.raises(Invalid, match=r"not a fixed address of a NIC, as nat needs: 10\.9\.0\.7"):
        nat_target(endpoint("tcp:10.9.0.8:80"), known)
    with pytest.raises(Invalid, match=r"needs a NIC with a fixed ipv4\.address"):
        nat_target(endpoint("tcp:10.9.0.8:80"), ("fd42::7",))


def test_the_kernels_rules_pair_the_ports() -> None:
    rules = redirect_of("x", Redirect("tcp", "10.0.0.1", "10.9.0.7", ((80, 8080), (81, 8080))))
    assert rules.count("ip daddr 10.0.0.1 tcp dport 80 dnat ip to 10.9.0.7:8080") == 2
    assert rules.count("ip daddr 10.0.0.1 tcp dport 81 dnat ip to 10.9.0.7:8080") == 2
    assert rules.count("masquerade") == 1
    assert "dnat ip6 to [fd42::7]:53" in redirect_of("x", Redirect("udp", "fd00::1", "fd42::7", ((53, 53),)))
