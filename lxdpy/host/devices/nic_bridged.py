"""Device type `nic`, `nictype` bridged: a NIC on a managed bridge (`network`) or on any other (`parent`).

Two ways to the same NIC. For a container about to start we leave the pair to LXC (`veth`), which makes its
end right in the new namespace: start and stop are 20 to 30 ms shorter than when an end of our own pair is
moved there and back. Where the pair must be there before (hot plug; a name of the user's choice; isolation
and limits, which LXC cannot set) we make it and hand over its end (`phys`). Filters go by the name of the
host's end, so they are in place before the first packet either way.
"""

import asyncio
from ipaddress import ip_address
from typing import ClassVar

from lxdpy.config.key import Key, KeyTable
from lxdpy.config.network import BRIDGE, interface_of
from lxdpy.config.types import address, boolean, cidr, either, list_of, one_of
from lxdpy.host.devices.driver import Attachment, Nic, Options, Seat
from lxdpy.host.devices.nic import (
    COMMON,
    end_of,
    filter_of,
    host_name_of,
    hwaddr_of,
    is_on,
    owner_of,
    refuse,
    routes_of,
)
from lxdpy.host.devices.nic_limits import (
    LIMITS,
    NAMES,
    are_set,
    change,
    check_limits,
    hold_back,
    let_go,
    limit,
)
from lxdpy.host.devices.nic_vlan import OF_BRIDGE, check_membership, membership_of
from lxdpy.host.network import nftables, veth
from lxdpy.host.network.driver import Host, Network, NetworkDriver
from lxdpy.host.network.veth import random_name
from lxdpy.host.undo import Undo

ISOLATION = "security.port_isolation"
ADDRESSES = ("ipv4.address", "ipv6.address")
ROUTES = tuple(f"{ip}.routes{which}" for ip in ("ipv4", "ipv6") for which in ("", ".external"))
NONE = "none"  # in place of an address: with the filter, the whole family is dropped
FILTERS = ("security.mac_filtering", "security.ipv4_filtering", "security.ipv6_filtering")


class NicBridged:
    """See DeviceDriver. Kept in volatile: hwaddr, host_name."""

    type: ClassVar[str] = "nic/bridged"
    hotplug: ClassVar[bool] = True
    updatable: ClassVar[frozenset[str]] = NAMES | frozenset((*FILTERS, *ADDRESSES, *ROUTES))
    options: ClassVar[KeyTable] = KeyTable("bridged nic device", [
        *COMMON,
        *OF_BRIDGE,
        Key(name="network", doc="Managed network to connect to."),
        Key(name="parent", doc="Bridge of the host to connect to.", needs="`nictype` is `bridged`"),
        Key(
            name="ipv4.address",
            doc="IPv4 address that DHCP always gives the instance; `none` for a filter that drops all IPv4.",
            parse=either(one_of(NONE), address(4)),
            needs="a managed network",
        ),
        Key(
            name="ipv6.address",
            doc="IPv6 address that DHCP always gives the instance; `none` for a filter that drops all IPv6.",
            parse=either(one_of(NONE), address(6)),
            needs="a managed network with ipv6.dhcp.stateful",
        ),
        *LIMITS,
        *(
            Key(
                name=f"ipv{version}.routes.external",
                doc=f"More IPv{version} subnets (by commas) that the host sends to the NIC.",
                parse=list_of(cidr(version)),
            )
            for version in (4, 6)
        ),
        Key(
            name="security.mac_filtering",
            doc="Whether packets are dropped that do not come from the NIC's own MAC address.",
            parse=boolean,
            default="false",
        ),
        Key(
            name="security.ipv4_filtering",
            doc="Whether IPv4 packets from any but `ipv4.address` are dropped, and those from another MAC.",
            parse=boolean,
            default="false",
        ),
        Key(
            name="security.ipv6_filtering",
            doc="Whether IPv6 packets from any but `ipv6.address` are dropped, and those from another MAC.",
            parse=boolean,
            default="false",
        ),
        Key(
            name="security.port_isolation",
            doc="Whether the NIC cannot reach other isolated NICs of its bridge.",
            parse=boolean,
            default="false",
        ),
    ])  # fmt: skip

    def __init__(self, networks: NetworkDriver) -> None:
        self._networks = networks

    def check(self, options: Options) -> None:
        self.options.check(options)
        managed, parent = options.get("network"), options.get("parent")
        check_membership(options)
        if bool(managed) == bool(parent):
            said = f'"network={managed}" and "parent={parent}"' if managed else "neither is set"
            raise refuse(f'one of "network" and "parent" is needed, not both or none: {said}', "network")
        if managed and options.get("nictype"):
            kind = options["nictype"]
            raise refuse(f'"nictype={kind}" goes with "parent"; that of a "network" is known', "nictype")
        check_limits(options)
        for ip in ("ipv4", "ipv6"):
            if is_on(options, f"security.{ip}_filtering") and not options.get(f"{ip}.address"):
                key = f"security.{ip}_filtering"
                raise refuse(f'"{key}={options[key]}" needs "{ip}.address", or {NONE} in its place', key)

    async def start(self, seat: Seat) -> Attachment:
        self._check_addresses(seat)
        hwaddr = hwaddr_of(seat)
        async with Undo() as undo:
            nic = await self._connect(seat, hwaddr, undo)
            if seat.network:
                await self._networks.add_host(seat.network, _host(seat, hwaddr))
        return Attachment(nics=(nic,), volatile={"hwaddr": hwaddr, "host_name": nic.host_name})

    async def _connect(self, seat: Seat, hwaddr: str, undo: Undo) -> Nic:
        bridge, routes = _bridge(seat), routes_of(seat.options)
        by_lxc = seat.cold and not _ours(seat.options)
        # LXC refuses a name that is in use, as that of the last start may be for a moment: draw a new one.
        host_name = random_name() if by_lxc else host_name_of(seat)
        undo.push(asyncio.to_thread, veth.remove, owner_of(seat), host_name, bridge, routes)
        if any(is_on(seat.options, name) for name in FILTERS):
            undo.push(nftables.remove, "bridge", filter_of(seat))
            await nftables.apply(_filter(seat, host_name, hwaddr))
        mtu = int(seat.options.get("mtu") or 0)
        name = seat.options.get("name", "")
        if by_lxc:
            usual = await asyncio.to_thread(veth.prepare, bridge, routes)
            return Nic(
                name=name, kind="veth", link=bridge, host_name=host_name, hwaddr=hwaddr, mtu=mtu or usual
            )
        pair = veth.Pair(
            owner=owner_of(seat),
            host_name=host_name,
            hwaddr=hwaddr,
            mtu=mtu,
            bridge=bridge,
            isolated=is_on(seat.options, ISOLATION),
            routes=routes,
            vlans=membership_of(seat.options),
            ours=seat.network is not None,
            ingress=limit(seat.options, "limits.ingress"),
        )
        made = await asyncio.to_thread(veth.make, pair)
        await hold_back(seat, host_name, undo)
        return Nic(name=name, link=made.peer, host_name=host_name, hwaddr=hwaddr, mtu=made.mtu)

    async def update(self, seat: Seat, before: Options) -> None:
        self._check_addresses(seat)
        await change(seat)
        host_name, hwaddr = end_of(seat), hwaddr_of(seat)
        if any(is_on(seat.options, name) for name in FILTERS):
            await nftables.apply(_filter(seat, host_name, hwaddr))
        else:
            await nftables.remove("bridge", filter_of(seat))
        old, new = routes_of(before), routes_of(seat.options)
        await asyncio.to_thread(veth.set_routes, _bridge(seat), old, new)
        if seat.network:
            await self._networks.add_host(seat.network, _host(seat, hwaddr))

    async def detach(self, seat: Seat) -> Attachment:
        """Nothing to take out: the container's end goes with the host's."""
        return Attachment()

    async def stop(self, seat: Seat) -> None:
        known, routes = seat.volatile.get("host_name", ""), routes_of(seat.options)
        await asyncio.to_thread(veth.remove, owner_of(seat), known, _bridge(seat), routes)
        if any(is_on(seat.options, name) for name in FILTERS):
            await nftables.remove("bridge", filter_of(seat))
        await let_go(seat)
        if seat.network and not (_fixed(seat.options, "ipv4") or _fixed(seat.options, "ipv6")):
            await self._networks.remove_host(seat.network, seat.instance, seat.name)

    def _check_addresses(self, seat: Seat) -> None:
        for ip in ("ipv4", "ipv6"):
            wanted = _fixed(seat.options, ip)
            if not wanted:
                continue
            if seat.network is None:
                raise refuse(
                    f'"{ip}.address={wanted}" needs a managed network: set "network", not "parent"',
                    f"{ip}.address",
                )
            _check_address(seat.network, ip, wanted)


def _check_address(network: Network, ip: str, wanted: str) -> None:
    own = interface_of(network.config, ip)
    if own is None or ip_address(wanted) not in own.network:
        there = f"{own.network}" if own else f"none of {ip}"
        raise refuse(
            f'"{ip}.address={wanted}" is not in a subnet of network {network.name}: {there}', f"{ip}.address"
        )
    if ip_address(wanted) == own.ip:
        raise refuse(f"{wanted} is the address of network {network.name} itself", f"{ip}.address")
    if ip == "ipv6" and not BRIDGE.parsed(network.config, "ipv6.dhcp.stateful"):
        raise refuse(f"network {network.name} needs ipv6.dhcp.stateful for fixed addresses", "ipv6.address")


def _bridge(seat: Seat) -> str:
    return seat.network.name if seat.network else seat.options.get("parent", "")


def _ours(options: Options) -> bool:
    """Whether we must make the pair ourselves."""
    drawn = not options.get("host_name") and not membership_of(options)
    return is_on(options, ISOLATION) or are_set(options) or not drawn


def _fixed(options: Options, ip: str) -> str:
    """The address that stays the instance's while it is stopped; "" for none."""
    return options.get(f"{ip}.address", "").replace(NONE, "")


def _host(seat: Seat, hwaddr: str) -> Host:
    return Host(
        instance=seat.instance,
        device=seat.name,
        hwaddr=hwaddr,
        ipv4=_fixed(seat.options, "ipv4"),
        ipv6=_fixed(seat.options, "ipv6"),
    )


def _filter(seat: Seat, host_name: str, hwaddr: str) -> str:
    own = {
        ip: [seat.options[f"{ip}.address"]] if is_on(seat.options, f"security.{ip}_filtering") else []
        for ip in ("ipv4", "ipv6")
    }
    return nftables.filter_of(filter_of(seat), host_name, hwaddr, own["ipv4"], own["ipv6"])
