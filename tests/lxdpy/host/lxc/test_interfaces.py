import socket

import pytest

from lxdpy.host.lxc.interfaces import scope_of


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("127.0.0.1", "local"),
        ("127.8.0.1", "local"),
        ("::1", "local"),
        ("169.254.7.1", "link"),
        ("169.253.0.1", "global"),
        ("fe80::1", "link"),
        ("febf::1", "link"),
        ("fec0::1", "global"),
        ("fd00::1", "global"),
        ("10.0.0.1", "global"),
    ],
)
def test_an_address_tells_how_far_it_reaches(address: str, scope: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert scope_of(socket.inet_pton(family, address)) == scope
