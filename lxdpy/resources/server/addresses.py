"""Where clients can reach a server that listens on all addresses of its host."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from cluster.address import WILDCARDS, join_address, parse_address
from lxdpy.host.network.links import Links

Address = tuple[str, int]


def reachable(listening: Iterable[str]) -> list[str]:
    """The addresses listened on, the host's own in place of a wildcard. Blocking: it may ask the kernel."""
    parsed = [parse_address(text) for text in listening]
    own = _own() if any(host in WILDCARDS for host, _ in parsed) else []
    return concrete(parsed, own)


def concrete(listening: Iterable[Address], own: Sequence[str]) -> list[str]:
    """As LXD does: of the host's `own` addresses those that others can use, in their order."""
    usable = [host for host in own if _is_global(host)]
    found: list[str] = []
    for host, port in listening:
        if host in WILDCARDS:
            found += [join_address((one, port)) for one in usable if ":" not in one or host != "0.0.0.0"]
        else:
            found.append(join_address((host, port)))
    return list(dict.fromkeys(found))


def _own() -> list[str]:
    with Links() as links:
        return [one.address for one in links.addresses()]


def _is_global(host: str) -> bool:
    address = ip_address(host)
    return not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )
