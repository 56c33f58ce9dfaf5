"""Pairs of virtual interfaces: one end stays on the host, the other moves into a container. Blocking.

Making a pair takes 2 ms, moving an end into another namespace 20 to 40, deleting one 25: the kernel waits for
all its CPUs each time. Hence `prepare` for containers that LXC starts: it makes the pair in its place.

The host's end of ours is marked with its owner (the kernel's ifalias), so that a name given by a user, or
one that was remembered too long, can never make us delete what is not ours, and an end whose name was
forgotten is found.
"""

import re
import secrets

import msgspec

from cluster.errors import Conflict, Unavailable
from lxdpy.host.network import bridge_vlans
from lxdpy.host.network.bridge_vlans import Membership
from lxdpy.host.network.links import Link, Links

DRAWN = re.compile(r"veth[0-9a-f]{8}")


class NameTaken(Conflict):
    """The name for the host's end is that of an interface which is not this device's."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A pair to be made."""

    owner: str
    host_name: str
    hwaddr: str  # of the end in the container
    mtu: int = 0  # 0: that of the bridge, or the kernel's default
    bridge: str = ""  # that the host's end is a port of; "": none
    isolated: bool = False  # no traffic with other isolated ports
    routes: tuple[str, ...] = ()  # subnets sent into the bridge, or down the pair when there is none
    vlans: Membership = Membership()  # that the host's end is in, as a port of the bridge
    ours: bool = False  # whether the bridge is a managed network's
    ingress: int = 0  # most that goes to the container, in bits a second; 0: no limit
    addresses: tuple[str, ...] = ()  # of the host's end (CIDR)
    tables: tuple[tuple[str, int], ...] = ()  # routes down the pair in other tables: (subnet, table)


class Made(msgspec.Struct, frozen=True):
    """What is there now."""

    peer: str  # name of the end that is to move
    mtu: int


def random_name() -> str:
    """For the host's end; as LXD's."""
    return f"veth{secrets.token_hex(4)}"


def prepare(bridge: str, routes: tuple[str, ...] = ()) -> int:
    """Have a bridge ready for a pair that LXC makes; its MTU. Raises Unavailable, as `make`."""
    with Links() as links:
        link = _bridge(links, bridge)
        for subnet in routes:
            links.add_route(link.index, subnet)
        return link.mtu


def make(pair: Pair) -> Made:
    """Make the pair as asked. One that is there and whole is kept; one whose other end has moved is replaced.

    Raises Unavailable when the bridge is missing: the network may be on its way. Raises NameTaken; Conflict
    or Unsupported where there are no VLANs.
    """
    with Links() as links:
        bridge = _bridge(links, pair.bridge) if pair.bridge else None
        if bridge and pair.vlans:
            bridge_vlans.require(links, bridge, ours=pair.ours)
        mtu = pair.mtu or (bridge.mtu if bridge else 0)
        host, peer = _both(links, pair, mtu)
        for end in (host, peer):
            if mtu and end.mtu != mtu:
                links.change(end.index, mtu=mtu)
        if bridge:
            _connect(links, bridge, host, pair)
        links.set_rate(host.index, pair.ingress // 8)
        if not host.up:
            links.change(host.index, state="up")
        for address in pair.addresses:
            links.add_address(host.index, address)
        for subnet in pair.routes:
            links.add_route(bridge.index if bridge else host.index, subnet)
        for subnet, table in pair.tables:
            links.add_route(host.index, subnet, table)
        return Made(peer.name, mtu or host.mtu)


def _both(links: Links, pair: Pair, mtu: int) -> tuple[Link, Link]:
    host = links.find(pair.host_name)
    if host:
        if host.alias != pair.owner:
            raise NameTaken(f"The host has another interface named {host.name}", interface=host.name)
        peer = next((link for link in links.all() if link.index == host.peer), None)
        if peer and peer.hwaddr == pair.hwaddr:
            return host, peer
        links.delete(host.name)
    size = {"mtu": mtu} if mtu else {}
    name = random_name()
    host = links.add(pair.host_name, "veth", peer={"ifname": name, "address": pair.hwaddr, **size}, **size)
    links.change(host.index, ifalias=pair.owner)
    return host, links.get(name)


def _connect(links: Links, bridge: Link, host: Link, pair: Pair) -> None:
    if host.master != bridge.index:
        links.change(host.index, master=bridge.index)
    links.set_port(host.index, isolated=int(pair.isolated))
    if pair.vlans:
        bridge_vlans.join(links, _bridge(links, bridge.name), host, pair.vlans)


def _bridge(links: Links, name: str) -> Link:
    link = links.find(name)
    if link is None or link.kind != "bridge":
        raise Unavailable(f"The bridge does not exist on this host: {name}", interface=name)
    return link


def set_ingress(host_name: str, rate: int) -> None:
    """Have no more than `rate` bits a second go to the container; 0 for no limit. Raises NotFound."""
    with Links() as links:
        links.set_rate(links.get(host_name).index, rate // 8)


def set_routes(link: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Send these subnets to a bridge or a pair's end, and those from before no more. Raises NotFound."""
    with Links() as links:
        index = links.get(link).index
        for subnet in {*before} - {*after}:
            links.delete_route(index, subnet)
        for subnet in after:
            links.add_route(index, subnet)


def remove(owner: str, host_name: str = "", bridge: str = "", routes: tuple[str, ...] = ()) -> None:
    """Remove the owner's pair, both ends, wherever the other is, and the routes through it.

    Without `host_name` all links are looked through for the owner's: 30 ms for a thousand. A pair that LXC
    made bears no mark: it is taken for the owner's when its name is of the kind we draw and it is on
    `bridge`.
    """
    with Links() as links:
        under = links.find(bridge) if bridge else None
        if host_name:
            named = links.find(host_name)
            drawn = named and not named.alias and DRAWN.fullmatch(named.name) and named.kind == "veth"
            if named and (named.alias == owner or (drawn and under and named.master == under.index)):
                links.delete(named.name)
        else:
            for link in links.all():
                if link.alias == owner:
                    links.delete(link.name)
        if under:
            for subnet in routes:
                links.delete_route(under.index, subnet)
