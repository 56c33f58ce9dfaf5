"""Addresses behind this host that one of its interfaces answers for. Blocking."""

from collections.abc import Iterable
from pathlib import Path

from lxdpy.host.network import sysctl
from lxdpy.host.network.links import Links
from lxdpy.host.network.macvlan import parent_of


def begin(parent: str, addresses: Iterable[str], proc: Path) -> None:
    """Raises Unavailable if the interface is not there."""
    with Links() as links:
        link = parent_of(links, parent)
        for address in addresses:
            if ":" in address:
                sysctl.put(proc, f"ipv6/conf/{parent}/proxy_ndp", "1")
            links.answer_for(link.index, address, wanted=True)


def end(parent: str, addresses: Iterable[str]) -> None:
    """Idempotent."""
    with Links() as links:
        if link := links.find(parent):
            for address in addresses:
                links.answer_for(link.index, address, wanted=False)


def forward(addresses: Iterable[str], proc: Path) -> None:
    """Let this host route what goes to them."""
    for address in addresses:
        if ":" in address:
            sysctl.forward_ipv6(proc)
        else:
            sysctl.forward_ipv4(proc)
