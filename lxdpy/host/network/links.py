"""Links, addresses and routes of this host's network namespace, over netlink.

Blocking, but quick (a session and ten requests: 3 ms); call it by `asyncio.to_thread`. A session is for one
thread. Netlink and not /sys/class/net, because that shows the namespace of whoever mounted it.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cluster.errors import Conflict, NotFound, Unsupported

ENOENT, ENODEV, EOPNOTSUPP = 2, 19, 95
NTF_PROXY = 8  # of a neighbour: we answer for it
IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT = 0x1, 0x2, 0x8, 0x10
IFA_F_NODAD = 0x02  # an address that is used at once: nobody else is on a bridge that we make
PROTO_STATIC = 4  # of routes: made by an administrator; those of a bridge of ours, as its config says
PROTO_BOOT = 3  # those of NICs, which may be on the same bridge; with LXD too
ROOT = 0xFFFFFFFF  # tc's handle for what stands at the top of a link
BURSTS_A_SECOND = 100  # a burst is what passes between two ticks of a 100 Hz kernel: tc-tbf(8)
SMALLEST_BURST = 65536  # bytes; a packet joined by the sender can be that large
LATENCY = "50ms"  # longest a packet waits before it is dropped
SCOPES = {0: "global", 200: "site", 253: "link", 254: "local", 255: "nowhere"}


class LinkRefused(Conflict):
    """The kernel did not take a change of a link, an address or a route."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface. `raw` is pyroute2's message, for what is asked for seldom."""

    index: int
    name: str
    kind: str  # bridge, veth, vlan, …; "" for hardware and lo
    hwaddr: str
    mtu: int
    flags: int
    master: int  # index of its bridge or bond; 0: none
    peer: int  # index of a veth's other end, or of what a vlan sits on; 0: none, or in another namespace
    alias: str = ""
    names: tuple[str, ...] = ()  # further ones, by which it is found too
    raw: Any = None

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    def data(self, name: str) -> Any:
        """An attribute special to the kind of link."""
        info = self.raw.get("IFLA_LINKINFO")
        data = info.get("IFLA_INFO_DATA") if info else None
        return data.get(name) if data else None


class IpAddress(msgspec.Struct, frozen=True):
    family: int  # socket.AF_INET or AF_INET6
    address: str
    prefix: int
    scope: str

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


class Links:
    """A netlink session. Whatever the kernel refuses inside the block leaves it as LinkRefused."""

    def __enter__(self) -> Self:
        self._ip = IPRoute()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ip.close()
        if isinstance(error, NetlinkError):
            raise LinkRefused(f"The kernel refused a network change: {os.strerror(error.code)}") from error

    def find(self, name: str) -> Link | None:
        try:
            return _link(self._ip.link("get", ifname=name)[0])
        except NetlinkError as error:
            if error.code == ENODEV:
                return None
            raise

    def get(self, name: str) -> Link:
        """Raises NotFound."""
        if link := self.find(name):
            return link
        raise NotFound(f"Network interface not found: {name}", interface=name)

    def all(self) -> list[Link]:
        return [_link(raw) for raw in self._ip.get_links()]

    def add(self, name: str, kind: str, **facts: object) -> Link:
        """`facts` as pyroute2's `link("add")` takes them."""
        self._ip.link("add", ifname=name, kind=kind, **facts)
        return self.get(name)

    def change(self, index: int, **facts: object) -> None:
        self._ip.link("set", index=index, **facts)

    def set_port(self, index: int, **facts: object) -> None:
        """Settings of a link as a port of its bridge."""
        self._ip.brport("set", index=index, **facts)

    def name_too(self, index: int, name: str) -> None:
        """One more name. No two interfaces can have the same."""
        self._ip.link("property_add", index=index, altname=name)

    def name_no_more(self, index: int, name: str) -> None:
        """Take away a further name that it has."""
        self._ip.link("property_del", index=index, altname=name)

    def add_vlan(self, name: str, below: int, number: int, *, gvrp: bool) -> Link:
        """Raises Unsupported where the kernel has no VLANs."""
        flags = {"vlan_flags": ["reorder_hdr", "gvrp"]} if gvrp else {}
        with _supported("VLANs of interfaces", "8021q"):
            return self.add(name, "vlan", link=below, vlan_id=number, **flags)

    def filter_vlans(self, bridge: int) -> None:
        """Have a bridge tell VLANs apart. Raises Unsupported where the kernel cannot."""
        with _supported("VLANs of bridges", "CONFIG_BRIDGE_VLAN_FILTERING"):
            self._ip.link("set", index=bridge, kind="bridge", br_vlan_filtering=1)

    def join_vlan(self, port: int, number: int, *, untagged: bool) -> None:
        """Put a port of a bridge into a VLAN, with a tag or without. Again is no harm."""
        flags = ["pvid", "untagged"] if untagged else 0
        self._ip.vlan_filter("add", index=port, vlan_info={"vid": number, "flags": flags})

    def leave_vlan(self, port: int, number: int) -> None:
        """Idempotent."""
        try:
            self._ip.vlan_filter("del", index=port, vlan_info={"vid": number, "flags": 0})
        except NetlinkError as error:
            if error.code != ENOENT:
                raise

    def set_rate(self, index: int, rate: int) -> None:
        """Send no faster than `rate` bytes a second; 0 for no limit."""
        limited = any(one.get("TCA_KIND") == "tbf" for one in self._ip.get_qdiscs(index=index))
        if rate:
            burst = max(rate // BURSTS_A_SECOND, SMALLEST_BURST)
            self._ip.tc("replace", "tbf", index, rate=rate, burst=burst, latency=LATENCY, parent=ROOT)
        elif limited:
            self._ip.tc("del", index=index, parent=ROOT)

    def delete(self, name: str) -> bool:
        """Whether it was there. The other end of a veth goes too, wherever it is."""
        link = self.find(name)
        if link is None:
            return False
        try:
            self._ip.link("del", index=link.index)
        except NetlinkError as error:
            if error.code != ENODEV:
                raise
        return True

    def addresses(self, index: int | None = None) -> list[IpAddress]:
        """Of one link, or of all."""
        found = self._ip.get_addr() if index is None else self._ip.get_addr(index=index)
        return [
            IpAddress(
                one["family"],
                one.get("IFA_LOCAL") or one.get("IFA_ADDRESS"),
                one["prefixlen"],
                SCOPES.get(one["scope"], "global"),
            )
            for one in found
        ]

    def set_addresses(self, index: int, wanted: Iterable[str]) -> None:
        """Give a link exactly these global addresses (CIDR); its link-local one is left alone."""
        present = {str(one) for one in self.addresses(index) if one.scope == "global"}
        target = set(wanted)
        for verb, changed in (("del", present - target), ("add", target - present)):
            for one in sorted(changed):
                address, _, prefix = one.partition("/")
                facts = {"flags": IFA_F_NODAD} if verb == "add" and ":" in address else {}
                self._ip.addr(verb, index=index, address=address, prefixlen=int(prefix), **facts)

    def add_address(self, index: int, address: str) -> None:
        """One more (CIDR); again is no harm."""
        plain, _, prefix = address.partition("/")
        facts = {"flags": IFA_F_NODAD} if ":" in plain else {}
        self._ip.addr("replace", index=index, address=plain, prefixlen=int(prefix), **facts)

    def answer_for(self, index: int, address: str, *, wanted: bool) -> None:
        """Whether a link tells its neighbours that an address behind this host is here. Again is no harm."""
        try:
            verb = "replace" if wanted else "del"
            self._ip.neigh(verb, dst=address, ifindex=index, flags=NTF_PROXY)
        except NetlinkError as error:
            if wanted or error.code != ENOENT:
                raise

    def routes(self, index: int, proto: int) -> set[str]:
        """Those that `add_route` may have made on a link."""
        return {
            f"{one.get('RTA_DST')}/{one['dst_len']}"
            for one in self._ip.get_routes(oif=index)
            if one["proto"] == proto and one.get("RTA_DST")
        }

    def add_route(self, index: int, subnet: str, table: int = 0, proto: int = PROTO_BOOT) -> None:
        """Send a subnet to a link, by the main table or another; again is no harm."""
        facts = {"table": table} if table else {}
        self._ip.route("replace", dst=subnet, oif=index, proto=proto, **facts)

    def delete_route(self, index: int, subnet: str, proto: int = PROTO_BOOT) -> None:
        if subnet in self.routes(index, proto):
            self._ip.route("del", dst=subnet, oif=index, proto=proto)

    def used_subnets(self) -> set[str]:
        """Subnets (CIDR) that this host has an address in or a route to."""
        routed = {
            f"{one.get('RTA_DST')}/{one['dst_len']}"
            for one in self._ip.get_routes(table=254)
            if one.get("RTA_DST") and one["dst_len"]
        }
        own = {str(one) for one in self.addresses() if one.scope == "global"}
        return routed | own


@contextlib.contextmanager
def _supported(what: str, by: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code == EOPNOTSUPP:
            raise Unsupported(f"This host's kernel has no {what} ({by})") from None
        raise


def _link(raw: Any) -> Link:
    elsewhere = raw.get("IFLA_LINK_NETNSID") is not None
    info = raw.get("IFLA_LINKINFO")
    properties = raw.get("IFLA_PROP_LIST")
    return Link(
        index=raw["index"],
        name=raw.get("IFLA_IFNAME"),
        kind=(info.get("IFLA_INFO_KIND") if info else None) or "",
        hwaddr=raw.get("IFLA_ADDRESS") or "",
        mtu=raw.get("IFLA_MTU") or 0,
        flags=raw["flags"],
        master=raw.get("IFLA_MASTER") or 0,
        peer=0 if elsewhere else raw.get("IFLA_LINK") or 0,
        alias=raw.get("IFLA_IFALIAS") or "",
        names=tuple(properties.get_attrs("IFLA_ALT_IFNAME")) if properties else (),
        raw=raw,
    )
