"""Interfaces of the host lent to a container whole, and as they were when they come back. Blocking."""

import msgspec

from cluster.errors import Conflict
from lxdpy.host.network.links import Links
from lxdpy.host.network.macvlan import parent_of


class Lent(msgspec.Struct, frozen=True):
    """What an interface was before."""

    hwaddr: str
    mtu: int


def lend(name: str, hwaddr: str = "", mtu: int = 0) -> Lent:
    """Set what was asked for. Raises Unavailable if it is not here, Conflict for the host's loopback."""
    with Links() as links:
        link = parent_of(links, name)
        if link.name == "lo":
            raise Conflict("The host needs its loopback interface", interface=name)
        if (hwaddr and hwaddr != link.hwaddr) or (mtu and mtu != link.mtu):
            links.change(link.index, state="down")
            links.change(link.index, **_facts(hwaddr, mtu))
        return Lent(link.hwaddr, link.mtu)


def take_back(name: str, before: Lent) -> None:
    """As it was, if it is here; where not, it has never gone, or not come back."""
    with Links() as links:
        link = links.find(name)
        if link is None or (link.hwaddr == before.hwaddr and link.mtu == before.mtu):
            return
        links.change(link.index, state="down")
        links.change(link.index, **_facts(before.hwaddr, before.mtu))


def _facts(hwaddr: str, mtu: int) -> dict[str, object]:
    facts: dict[str, object] = {"address": hwaddr} if hwaddr else {}
    return facts | ({"mtu": mtu} if mtu else {})
