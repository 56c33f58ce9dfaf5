"""Device type `nic`, `nictype` routed: a pair by which the host routes fixed addresses to the instance.

The instance is in no network with anybody. With a parent the host answers there for the addresses, so that
they seem to be in the parent's network; no interface of that is touched otherwise. What the instance sends
from any other address is dropped.
"""

import asyncio
from ipaddress import ip_address
from typing import ClassVar

from cluster.errors import Conflict
from lxdpy.config.key import Key, KeyTable
from lxdpy.config.network import items
from lxdpy.config.types import address, boolean, integer, list_of, one_of
from lxdpy.host.devices.driver import Attachment, Nic, Options, Seat
from lxdpy.host.devices.nic import (
    COMMON,
    PARENT,
    filter_of,
    host_name_of,
    hwaddr_of,
    owner_of,
    refuse,
    routes_of,
)
from lxdpy.host.devices.nic_limits import LIMITS, NAMES, change, check_limits, hold_back, let_go, limit
from lxdpy.host.devices.nic_vlan import OF_PARENT, check_vlan, held, hold, release
from lxdpy.host.network import answers, macvlan, nftables, probe, veth
from lxdpy.host.paths import HostRoot
from lxdpy.host.undo import Undo

FAMILIES = ("ipv4", "ipv6")
HOSTS = {"ipv4": "169.254.0.1", "ipv6": "fe80::1"}  # of the host's end, as with LXD
WHOLE = {"ipv4": 32, "ipv6": 128}


def _keys(family: str, version: int) -> tuple[Key, ...]:
    """Those that there are of each family."""
    name = f"IPv{version}"
    return (
        Key(
            name=f"{family}.address",
            doc=f"{name} addresses (by commas) of the instance.",
            parse=list_of(address(version)),
        ),
        Key(
            name=f"{family}.gateway",
            doc=f"Whether the host is the instance's default {name} gateway: `auto` or `none`.",
            parse=one_of("auto", "none"),
            default="auto",
        ),
        Key(
            name=f"{family}.host_address",
            doc=f"{name} address of the host's end.",
            parse=address(version),
            default=HOSTS[family],
        ),
        Key(
            name=f"{family}.host_table",
            doc=f"Routing table that the {name} routes are put into, besides the main one.",
            parse=integer(1, 2**31 - 1),
        ),
        Key(
            name=f"{family}.neighbor_probe",
            doc=f"Whether the {name} addresses are refused that somebody in the parent's network has.",
            parse=boolean,
            default="true",
            needs="parent",
        ),
    )


class NicRouted:
    """See DeviceDriver. Kept in volatile: hwaddr, host_name."""

    type: ClassVar[str] = "nic/routed"
    hotplug: ClassVar[bool] = True
    updatable: ClassVar[frozenset[str]] = NAMES
    options: ClassVar[KeyTable] = KeyTable(
        "routed nic device",
        [*COMMON, PARENT, *OF_PARENT, *LIMITS, *_keys("ipv4", 4), *_keys("ipv6", 6)],
    )

    def __init__(self, root: HostRoot) -> None:
        self._proc = root.proc

    def check(self, options: Options) -> None:
        self.options.check(options)
        check_vlan(options)
        check_limits(options)
        for family in FAMILIES:
            own = addresses_of(options, family)
            if len({*own}) != len(own):
                raise refuse(f'"{family}.address" has one twice: {", ".join(own)}', f"{family}.address")
            if items(options, f"{family}.routes") and not own:
                key = f"{family}.routes"
                raise refuse(f'"{key}={options[key]}" needs "{family}.address"', key)

    async def start(self, seat: Seat) -> Attachment:
        """Raises Unavailable without the parent, Conflict for an address that is in use there."""
        options, host_name, hwaddr = seat.options, host_name_of(seat), hwaddr_of(seat)
        own = all_addresses(options)
        async with Undo() as undo:
            undo.push(self.stop, seat)
            parent = await hold(seat)
            usual = await asyncio.to_thread(macvlan.mtu_of, parent) if parent else 0
            await self._probe(options, parent)
            await asyncio.to_thread(answers.forward, own, self._proc)
            made = await asyncio.to_thread(veth.make, self._pair(seat, host_name, hwaddr, usual))
            await nftables.apply(nftables.origin_of(filter_of(seat), host_name))
            await hold_back(seat, host_name, undo)
            if parent:
                await asyncio.to_thread(answers.begin, parent, own, self._proc)
        nic = Nic(
            name=options.get("name", ""),
            link=made.peer,
            host_name=host_name,
            hwaddr=hwaddr,
            mtu=made.mtu,
            addresses=tuple(f"{one}/{ip_address(one).max_prefixlen}" for one in own),
            gateways=tuple(self._gateways(options)),
        )
        return Attachment(nics=(nic,), volatile={"hwaddr": hwaddr, "host_name": host_name})

    async def update(self, seat: Seat, before: Options) -> None:
        await change(seat)

    async def detach(self, seat: Seat) -> Attachment:
        """Nothing to take out: the container's end goes with the host's."""
        return Attachment()

    async def stop(self, seat: Seat) -> None:
        await asyncio.to_thread(veth.remove, owner_of(seat), seat.volatile.get("host_name", ""))
        await nftables.remove("inet", filter_of(seat))
        await let_go(seat)
        if parent := await held(seat):
            await asyncio.to_thread(answers.end, parent, all_addresses(seat.options))
        await release(seat)

    async def _probe(self, options: Options, parent: str) -> None:
        """Takes a second. The instance does not answer for itself: it is not in the parent's network."""
        asked = [
            address
            for family in FAMILIES
            if self.options.parsed(options, f"{family}.neighbor_probe")
            for address in addresses_of(options, family)
        ]
        if parent and asked and (used := await probe.first_in_use(parent, asked)):
            raise Conflict(f'IP address "{used}" in use on parent network "{parent}"', address=used)

    def _pair(self, seat: Seat, host_name: str, hwaddr: str, mtu: int) -> veth.Pair:
        options = seat.options
        own = {family: addresses_of(options, family) for family in FAMILIES}
        singles = {family: [f"{one}/{WHOLE[family]}" for one in own[family]] for family in FAMILIES}
        return veth.Pair(
            owner=owner_of(seat),
            host_name=host_name,
            hwaddr=hwaddr,
            mtu=int(options.get("mtu") or mtu),
            addresses=tuple(
                f"{self._host(options, family)}/{WHOLE[family]}" for family in FAMILIES if own[family]
            ),
            routes=(*singles["ipv4"], *singles["ipv6"], *routes_of(options)),
            tables=tuple(
                (subnet, int(options[f"{family}.host_table"]))
                for family in FAMILIES
                if options.get(f"{family}.host_table")
                for subnet in (*singles[family], *items(options, f"{family}.routes"))
            ),
            ingress=limit(options, "limits.ingress"),
        )

    def _host(self, options: Options, family: str) -> str:
        return str(self.options.parsed(options, f"{family}.host_address"))

    def _gateways(self, options: Options) -> list[str]:
        return [
            self._host(options, family)
            for family in FAMILIES
            if addresses_of(options, family) and options.get(f"{family}.gateway") != "none"
        ]


def addresses_of(options: Options, family: str) -> tuple[str, ...]:
    """In the kernel's spelling."""
    return tuple(str(ip_address(one)) for one in items(options, f"{family}.address"))


def all_addresses(options: Options) -> tuple[str, ...]:
    return (*addresses_of(options, "ipv4"), *addresses_of(options, "ipv6"))
