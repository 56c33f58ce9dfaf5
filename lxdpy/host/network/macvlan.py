"""Interfaces with an address of their own on an interface of the host: macvlan. Blocking.

Marked with their owner as pairs are (`veth`), so that only he removes them.
"""

import secrets

from cluster.errors import Unavailable
from lxdpy.host.network.links import Link, Links


def random_name() -> str:
    """While it is on the host; as LXD's."""
    return f"mac{secrets.token_hex(4)}"


def parent_of(links: Links, name: str) -> Link:
    """Raises Unavailable when it is not there: it may be on its way, or in another instance."""
    link = links.find(name)
    if link is None:
        raise Unavailable(f"The interface does not exist on this host: {name}", interface=name)
    return link


def mtu_of(name: str) -> int:
    """Of an interface of the host. Raises Unavailable."""
    with Links() as links:
        return parent_of(links, name).mtu


def make(owner: str, name: str, parent: str, hwaddr: str, mtu: int) -> int:
    """Make it, or keep the owner's of that name and address; its MTU. Raises Unavailable."""
    with Links() as links:
        below = parent_of(links, parent)
        size = mtu or below.mtu
        here = links.find(name)
        if here and here.alias == owner and here.hwaddr == hwaddr:
            links.change(here.index, mtu=size)
            return size
        facts = {"link": below.index, "macvlan_mode": "bridge", "address": hwaddr, "mtu": size}
        made = links.add(name, "macvlan", **facts)
        links.change(made.index, ifalias=owner)
        return size


def remove(owner: str) -> None:
    """What of the owner's is on the host. What is in a container goes with that."""
    with Links() as links:
        for link in links.all():
            if link.alias == owner and link.kind == "macvlan":
                links.delete(link.name)
