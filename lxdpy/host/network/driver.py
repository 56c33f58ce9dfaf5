"""What a network driver is, and the shapes it reports in (those of LXD's REST API).

A managed network is the same on every member: each makes its own bridge from the same config. So everything
here is a function of a `Network` and of this host; what instances add (static leases) comes in as `Host`s.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Protocol

import msgspec

from lxdpy.config.key import KeyTable


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """What comes for an address is sent on to another. Without `ports`: all that none with ports takes."""

    listen: str
    target: str
    protocol: str = ""  # tcp or udp, with `ports`
    ports: str = ""  # numbers and ranges by commas
    to_port: int = 0  # 0: the one it came for


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A managed network, as far as a host needs to know it."""

    name: str
    type: str = "bridge"
    config: dict[str, str] = {}
    project: str = "default"
    forwards: tuple[Forward, ...] = ()  # on this host only


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """An instance's NIC as DHCP and DNS should know it."""

    instance: str  # key, "project/name"
    device: str
    hwaddr: str
    ipv4: str = ""  # "": a dynamic address
    ipv6: str = ""

    @property
    def name(self) -> str:
        return self.instance.rpartition("/")[2]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One address in use. LXD's NetworkLease."""

    hostname: str
    hwaddr: str
    address: str
    type: Literal["dynamic", "static", "gateway"]
    location: str = ""  # the member; filled in by the caller


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's NetworkStateAddress."""

    family: Literal["inet", "inet6"]
    address: str
    netmask: str  # the prefix length, as a string
    scope: str


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's NetworkStateCounters, since the interface was made."""

    bytes_received: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0


class BridgeState(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's NetworkStateBridge. `forward_delay` is in hundredths of a second, as the kernel shows it."""

    id: str
    stp: bool
    forward_delay: int
    vlan_default: int
    vlan_filtering: bool
    upper_devices: tuple[str, ...]  # LXD's word for the bridge's ports


class VlanState(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's NetworkStateVLAN."""

    lower_device: str
    vid: int


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's NetworkState of one interface."""

    addresses: tuple[Address, ...]
    counters: Counters
    hwaddr: str
    mtu: int
    state: Literal["up", "down"]
    type: str  # broadcast, loopback, point-to-point, unknown
    bond: None = None  # there for LXD's clients; bonds are shown as interfaces only
    bridge: BridgeState | None = None
    ovn: None = None
    vlan: VlanState | None = None


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface of the host, managed or not."""

    name: str
    type: str  # bridge, bond, vlan, physical, loopback, unknown: LXD's words


class NetworkDriver(Protocol):
    """One type of managed network. `check` is pure and runs on any member.

    All methods are idempotent: "make it so". Errors: `CommandFailed`, `Conflict` when the host has something
    else of that name, `Unsupported` when a program is missing.
    """

    type: ClassVar[str]
    keys: ClassVar[KeyTable]

    def check(self, name: str, config: dict[str, str]) -> None:
        """Raises Invalid, naming the key."""

    async def try_out(self, config: dict[str, str]) -> None:
        """Raises Invalid for what only the programs of the network can tell that they do not take."""

    def complete(self, config: dict[str, str], used: Iterable[str]) -> dict[str, str]:
        """`config` with its "auto" values chosen, outside the `used` subnets (CIDR). For the proposer."""
        ...

    async def ensure(self, network: Network, hosts: Sequence[Host] | None = None) -> None:
        """Make the host as `network` says. `hosts`: exactly those entries; None leaves them as they are."""

    def made(self) -> tuple[str, ...]:
        """Names of the networks that this host has something of, for a sweep that removes what is no more."""
        ...

    def serves(self, network: Network) -> bool:
        """Whether the programs of the network run, as far as its config wants any: `ensure` starts them."""
        ...

    async def add_host(self, network: Network, host: Host) -> None:
        """Add or replace one entry; effective before this returns, or within a second.

        Raises Unavailable where `ensure` has not made the network.
        """

    async def remove_host(self, network: Network, instance: str, device: str) -> None: ...

    async def remove(self, network: Network) -> None:
        """Remove all that `ensure` made. Instances' interfaces lose their bridge."""

    async def leases(self, network: Network) -> tuple[Lease, ...]: ...

    async def state(self, network: Network) -> NetworkState:
        """Raises NotFound when the host has no such interface."""
        ...
