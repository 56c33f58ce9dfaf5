"""A network driver that only remembers: for daemons without root, and for tests of what uses networks."""

import random
from collections.abc import Iterable, Sequence
from typing import ClassVar

from cluster.errors import NotFound
from lxdpy.config.key import KeyTable
from lxdpy.config.network import BRIDGE, check_network, interface_of
from lxdpy.host.network import subnets
from lxdpy.host.network.driver import Address, BridgeState, Counters, Host, Lease, Network, NetworkState

SEED = 7


class FakeBridge:
    """See NetworkDriver. Keeps `networks` and their `hosts` (by instance and device) in memory."""

    type: ClassVar[str] = "bridge"
    keys: ClassVar[KeyTable] = BRIDGE

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.hosts: dict[str, dict[tuple[str, str], Host]] = {}
        self.died: set[str] = set()  # networks whose programs have; `ensure` starts them
        self._dice = random.Random(SEED)  # noqa: S311 - repeatable on purpose

    def check(self, name: str, config: dict[str, str]) -> None:
        check_network(self.type, name, config)

    async def try_out(self, config: dict[str, str]) -> None:
        """It has no programs."""

    def complete(self, config: dict[str, str], used: Iterable[str]) -> dict[str, str]:
        return subnets.completed(config, self._dice, used)

    async def ensure(self, network: Network, hosts: Sequence[Host] | None = None) -> None:
        self.networks[network.name] = network
        self.died.discard(network.name)
        known = self.hosts.setdefault(network.name, {})
        if hosts is not None:
            known.clear()
            known.update({(host.instance, host.device): host for host in hosts})

    def made(self) -> tuple[str, ...]:
        return tuple(sorted(self.networks))

    def serves(self, network: Network) -> bool:
        return network.name in self.networks and network.name not in self.died

    async def add_host(self, network: Network, host: Host) -> None:
        self.hosts.setdefault(network.name, {})[host.instance, host.device] = host

    async def remove_host(self, network: Network, instance: str, device: str) -> None:
        self.hosts.get(network.name, {}).pop((instance, device), None)

    async def remove(self, network: Network) -> None:
        self.networks.pop(network.name, None)
        self.hosts.pop(network.name, None)

    async def leases(self, network: Network) -> tuple[Lease, ...]:
        gateways = tuple(
            Lease(hostname=f"{network.name}.gw", hwaddr="", address=str(own.ip), type="gateway")
            for ip in ("ipv4", "ipv6")
            if (own := interface_of(network.config, ip))
        )
        static = tuple(
            Lease(hostname=host.name, hwaddr=host.hwaddr, address=one, type="static")
            for host in self.hosts.get(network.name, {}).values()
            for one in (host.ipv4, host.ipv6)
            if one
        )
        return gateways + static

    async def state(self, network: Network) -> NetworkState:
        if network.name not in self.networks:
            raise NotFound(f"Network interface not found: {network.name}", interface=network.name)
        config = self.networks[network.name].config
        owns = [own for ip in ("ipv4", "ipv6") if (own := interface_of(config, ip))]
        return NetworkState(
            addresses=tuple(
                Address(
                    family="inet" if own.version == 4 else "inet6",
                    address=str(own.ip),
                    netmask=str(own.network.prefixlen),
                    scope="global",
                )
                for own in owns
            ),
            counters=Counters(),
            hwaddr=config.get("bridge.hwaddr") or "00:16:3e:00:00:01",
            mtu=int(config.get("bridge.mtu") or 1500),
            state="up",
            type="broadcast",
            bridge=BridgeState(
                id="8000.00163e000001",
                stp=False,
                forward_delay=1500,
                vlan_default=1,
                vlan_filtering=False,
                upper_devices=(),
            ),
        )
