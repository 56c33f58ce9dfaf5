"""Network type `bridge`: a bridge of this host with DHCP, DNS, routing and address translation.

The config is the whole truth: `ensure` compares the host with it and changes what differs, so it serves
creation, changes, the sweep at start and repair alike. That a bridge is ours, and not one of that name
which an administrator or another program made, is told by its folder below `$LXD_DIR/networks`.
"""

import asyncio
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar

from cluster.errors import Conflict, Unavailable
from lxdpy.config.key import KeyTable
from lxdpy.config.network import BRIDGE, check_network, interface_of, items, on
from lxdpy.host.network import leases, nftables, report, subnets, sysctl
from lxdpy.host.network.dnsmasq import Dnsmasq, Files, check_raw
from lxdpy.host.network.driver import Host, Lease, Network, NetworkState
from lxdpy.host.network.links import PROTO_STATIC, Link, Links
from lxdpy.host.paths import HostRoot

OURS = "00:16:3e"  # Xen's, which LXC and LXD take MAC addresses from


class NotOurs(Conflict):
    """The host has an interface of that name which is no bridge, or which is in use elsewhere."""


class Bridge:
    """See NetworkDriver. `folder` is `$LXD_DIR/networks`."""

    type: ClassVar[str] = "bridge"
    keys: ClassVar[KeyTable] = BRIDGE

    def __init__(self, folder: Path, root: HostRoot) -> None:
        self._folder, self._root = folder, root
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dice = random.SystemRandom()

    def check(self, name: str, config: dict[str, str]) -> None:
        check_network(self.type, name, config)

    async def try_out(self, config: dict[str, str]) -> None:
        await check_raw(config.get("raw.dnsmasq", ""))

    def complete(self, config: dict[str, str], used: Iterable[str]) -> dict[str, str]:
        return subnets.completed(config, self._dice, used)

    async def ensure(self, network: Network, hosts: Sequence[Host] | None = None) -> None:
        async with self._locks[network.name]:
            files = self._files(network)
            fresh = await asyncio.to_thread(self._make, network)
            await nftables.apply(nftables.rules_of(network))
            again = False
            if hosts is not None:
                again = await asyncio.to_thread(leases.write_hosts, files.hosts, hosts, _mode(network))
            server = self._server(network)
            if not await server.ensure(network, fresh_link=fresh) and again:
                server.reread()

    def made(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._folder.glob("*") if path.is_dir()))

    def serves(self, network: Network) -> bool:
        return self._server(network).is_as_wanted(network)

    async def add_host(self, network: Network, host: Host) -> None:
        async with self._locks[network.name]:
            if not self._files(network).folder.is_dir():  # by which a bridge of that name is known to be ours
                message = f"The network is not there on this host: {network.name}"
                raise Unavailable(message, interface=network.name)
            if leases.write_host(self._files(network).hosts, host, _mode(network)):
                self._server(network).reread()

    async def remove_host(self, network: Network, instance: str, device: str) -> None:
        async with self._locks[network.name]:
            if leases.remove_host(self._files(network).hosts, leases.file_name(instance, device)):
                self._server(network).reread()

    async def remove(self, network: Network) -> None:
        async with self._locks[network.name]:
            folder = self._files(network).folder
            if not folder.is_dir():
                return
            await self._server(network).stop()
            await nftables.remove("inet", network.name)
            await asyncio.to_thread(_delete_bridge, network.name)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def leases(self, network: Network) -> tuple[Lease, ...]:
        files = self._files(network)
        return await asyncio.to_thread(leases.leases_of, network, files.hosts, files.leases)

    async def state(self, network: Network) -> NetworkState:
        return await asyncio.to_thread(report.state, network.name)

    def _files(self, network: Network) -> Files:
        return Files(self._folder / network.name)

    def _server(self, network: Network) -> Dnsmasq:
        return Dnsmasq(self._files(network), self._root.proc)

    def _make(self, network: Network) -> bool:
        """The link with all that belongs to it; whether it is new."""
        config, proc = network.config, self._root.proc
        addresses = {ip: own for ip in ("ipv4", "ipv6") if (own := interface_of(config, ip))}
        folder = self._files(network).folder
        with Links() as links:
            before = links.find(network.name)
            if before and (before.kind != "bridge" or not folder.is_dir()):
                raise NotOurs(f"The host has another interface named {network.name}", name=network.name)
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            hwaddr = self._hwaddr(network)
            link = before or links.add(network.name, "bridge", address=hwaddr)
            self._adopt(links, network, link)
            _shape(links, link, int(config.get("bridge.mtu") or 1500), hwaddr)
            sysctl.prepare_bridge(proc, network.name, ipv6="ipv6" in addresses)
            if not link.up:
                links.change(link.index, state="up")
            links.set_addresses(link.index, (str(own) for own in addresses.values()))
            routes = (route for ip in addresses for route in items(config, f"{ip}.routes"))
            _set_routes(links, link, {str(ip_network(route, strict=False)) for route in routes})
        if "ipv4" in addresses and on(config, "ipv4.routing"):
            sysctl.forward_ipv4(proc)
        if "ipv6" in addresses and on(config, "ipv6.routing"):
            sysctl.forward_ipv6(proc)
        return before is None

    def _hwaddr(self, network: Network) -> str:
        """The config's, or one that this member drew once: a bridge without one changes it with its ports."""
        if given := network.config.get("bridge.hwaddr"):
            return given.lower()
        path = self._files(network).folder / "hwaddr"
        if path.exists():
            return path.read_text().strip()
        drawn = random_hwaddr(self._dice)
        path.write_text(drawn + "\n")
        return drawn

    def _adopt(self, links: Links, network: Network, bridge: Link) -> None:
        """Make the external interfaces ports; let go of those that an earlier config named, and no others."""
        record = self._files(network).folder / "external"
        wanted = items(network.config, "bridge.external_interfaces")
        earlier = record.read_text().split() if record.exists() else []
        for name in earlier:
            link = links.find(name)
            if name not in wanted and link and link.master == bridge.index:
                links.change(link.index, master=0)
        if list(wanted) != earlier:
            record.write_text("\n".join(wanted))
        for name in wanted:
            link = links.get(name)
            if link.master == bridge.index:
                continue
            if link.master or any(one.scope == "global" for one in links.addresses(link.index)):
                raise NotOurs(f"The interface {name} is in use: it has an address or a bridge", name=name)
            links.change(link.index, master=bridge.index, state="up")


def random_hwaddr(dice: subnets.Dice) -> str:
    return OURS + "".join(f":{dice.randint(0, 255):02x}" for _ in range(3))


def _mode(network: Network) -> str:
    return network.config.get("dns.mode") or "managed"


def _shape(links: Links, link: Link, mtu: int, hwaddr: str) -> None:
    if link.mtu != mtu:
        links.change(link.index, mtu=mtu)
    if link.hwaddr != hwaddr:
        links.change(link.index, address=hwaddr)


def _set_routes(links: Links, link: Link, wanted: set[str]) -> None:
    present = links.routes(link.index, PROTO_STATIC)
    for route in present - wanted:
        links.delete_route(link.index, route, PROTO_STATIC)
    for route in wanted - present:
        links.add_route(link.index, route, proto=PROTO_STATIC)


def _delete_bridge(name: str) -> None:
    with Links() as links:
        link = links.find(name)
        if link and link.kind == "bridge":
            links.delete(name)
