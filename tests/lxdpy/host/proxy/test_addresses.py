"""Addresses of proxies."""

import pytest

from lxdpy.host.proxy.addresses import Endpoint, endpoint, is_wildcard


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tcp:127.0.0.1:80", Endpoint("tcp", "127.0.0.1", (80,))),
        ("udp:[::1]:53,60-62", Endpoint("udp", "::1", (53, 60, 61, 62))),
        ("tcp:0.0.0.0:90,80", Endpoint("tcp", "0.0.0.0", (90, 80))),
        ("unix:/run/app.sock", Endpoint("unix", "/run/app.sock")),
        ("unix:@abstract", Endpoint("unix", "@abstract")),
    ],
)
def test_an_address_is_understood(text: str, meant: Endpoint) -> None:
    assert endpoint(text) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an address such as"),
        ("http:127.0.0.1:80", "an address such as"),
        ("tcp:127.0.0.1", "an address such as"),
        ("tcp::80", "an address such as"),
        ("tcp:localhost:80", "an address such as"),
        ("tcp:::1:80", "an address such as"),
        ("tcp:[127.0.0]:80", "in brackets if IPv6"),
        ("tcp:300.0.0.1:80", "an IP address"),
        ("tcp:127.0.0.1:0", "ports from 1 to 65535"),
        ("tcp:127.0.0.1:70000", "ports from 1 to 65535"),
        ("tcp:127.0.0.1:90-80", "from the lower to the higher"),
        ("tcp:127.0.0.1:1-2000", "at most 1024 ports"),
        ("unix:run/app", "a path, or a name after @"),
        ("unix:/" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_what_is_none_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="an address such as") as refused:
        endpoint(text)
    assert why in str(refused.value)


def test_wildcards_and_files_are_told_apart() -> None:
    assert is_wildcard(endpoint("tcp:[::]:80"))
    assert not is_wildcard(endpoint("tcp:127.0.0.1:80"))
    assert not is_wildcard(endpoint("unix:@x"))
    assert endpoint("unix:/x").is_path
    assert not endpoint("unix:@x").is_path
