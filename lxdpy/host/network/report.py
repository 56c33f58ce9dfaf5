"""What the host's interfaces are and do now, in LXD's shapes. Blocking, as `links`."""

import sys
from typing import Any, Literal

from lxdpy.host.network.driver import Address, BridgeState, Counters, Interface, NetworkState, VlanState
from lxdpy.host.network.links import IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT, Link, Links

AF_INET6 = 10
KINDS = {"bridge": "bridge", "bond": "bond", "vlan": "vlan", "": "physical"}
"""LXD's words by netlink's; hardware has no kind there."""


def interfaces() -> tuple[Interface, ...]:
    """All interfaces but those of instances, by name: as in LXD, veth pairs with a name of that kind."""
    with Links() as links:
        found = [link for link in links.all() if link.kind != "veth" or not link.name.startswith("veth")]
    return tuple(Interface(name=link.name, type=_type(link)) for link in sorted(found, key=lambda x: x.name))


def used_subnets() -> set[str]:
    """Subnets (CIDR) that a new network must stay clear of."""
    with Links() as links:
        return links.used_subnets()


def state(name: str) -> NetworkState:
    """Raises NotFound."""
    with Links() as links:
        link = links.get(name)
        addresses = links.addresses(link.index)
        others = links.all() if link.kind in ("bridge", "vlan") else []
    return NetworkState(
        addresses=tuple(
            Address(
                family="inet6" if one.family == AF_INET6 else "inet",
                address=one.address,
                netmask=str(one.prefix),
                scope="local" if one.scope == "nowhere" else one.scope,
            )
            for one in addresses
        ),
        counters=_counters(link.raw.get("IFLA_STATS64")),
        hwaddr=link.hwaddr,
        mtu=link.mtu,
        state=_up(link),
        type=_medium(link),
        bridge=_bridge(link, others) if link.kind == "bridge" else None,
        vlan=_vlan(link, others) if link.kind == "vlan" else None,
    )


def _type(link: Link) -> str:
    return "loopback" if link.flags & IFF_LOOPBACK else KINDS.get(link.kind, "unknown")


def _up(link: Link) -> Literal["up", "down"]:
    return "up" if link.up else "down"


def _medium(link: Link) -> str:
    for flag, name in (
        (IFF_LOOPBACK, "loopback"),
        (IFF_POINTOPOINT, "point-to-point"),
        (IFF_BROADCAST, "broadcast"),
    ):
        if link.flags & flag:
            return name
    return "unknown"


def _counters(stats: Any) -> Counters:
    if not stats:
        return Counters()
    return Counters(
        bytes_received=stats["rx_bytes"],
        bytes_sent=stats["tx_bytes"],
        packets_received=stats["rx_packets"],
        packets_sent=stats["tx_packets"],
    )


def _bridge(link: Link, others: list[Link]) -> BridgeState:
    own = link.data("IFLA_BR_BRIDGE_ID") or {"prio": 0, "addr": ""}
    # pyroute2 reads the priority in the host's byte order; on the wire it is big-endian.
    priority = f"{int.from_bytes(own['prio'].to_bytes(2, sys.byteorder)):04x}"
    return BridgeState(
        id=f"{priority}.{own['addr'].replace(':', '')}",
        stp=bool(link.data("IFLA_BR_STP_STATE")),
        forward_delay=link.data("IFLA_BR_FORWARD_DELAY") or 0,
        vlan_default=link.data("IFLA_BR_VLAN_DEFAULT_PVID") or 0,
        vlan_filtering=bool(link.data("IFLA_BR_VLAN_FILTERING")),
        upper_devices=tuple(sorted(one.name for one in others if one.master == link.index)),
    )


def _vlan(link: Link, others: list[Link]) -> VlanState:
    lower = next((one.name for one in others if one.index == link.peer), "")
    return VlanState(lower_device=lower, vid=link.data("IFLA_VLAN_ID") or 0)
