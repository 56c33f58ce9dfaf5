"""Config keys of managed networks, one table a network type. The names and values are those of LXD 5.0.

Every key takes effect at once: a network is made anew from its config whenever that changes.
"""

from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from cluster.errors import Invalid
from lxdpy.config.key import BadValue, Key, KeyTable
from lxdpy.config.types import (
    Parse,
    address,
    boolean,
    cidr,
    duration,
    either,
    integer,
    interface_name,
    list_of,
    mac_address,
    matching,
    one_of,
)

Interface = IPv4Interface | IPv6Interface

network_name = matching(
    r"(?!volatile\.|\.{1,2}$)[A-Za-z0-9][A-Za-z0-9_.-]{1,14}",
    "a network name (2 to 15 letters, digits, dots, hyphens, underscores)",
)
domain = matching(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*", "a domain name")


def address_range(version: int) -> Parse:
    """`10.0.0.10-10.0.0.99`: the first and the last address."""
    one = address(version)
    what = f"a range of IPv{version} addresses (first-last)"

    def parse(value: str) -> tuple[str, str]:
        low, dash, high = (part.strip() for part in value.partition("-"))
        if not dash:
            raise ValueError(what)
        one(low)
        one(high)
        if int(ip_address(low)) > int(ip_address(high)):
            raise ValueError(what)
        return low, high

    return parse


def _family(version: int) -> list[Key]:
    """The keys that exist for both versions of IP."""
    ip, what = f"ipv{version}", f"IPv{version}"
    has_address, has_dhcp = f"{ip}.address is set", f"{ip}.dhcp is on"
    return [
        Key(
            name=f"{ip}.address",
            doc=f"{what} address of the bridge with its prefix length; `auto` picks a free private subnet "
            f"when the network is created, `none` leaves {what} out.",
            parse=either(one_of("auto", "none"), cidr(version)),
            live=True,
        ),
        Key(
            name=f"{ip}.nat",
            doc=f"Whether {what} traffic that leaves the network gets an address of the host.",
            parse=boolean,
            default="false",
            live=True,
            needs=has_address,
        ),
        Key(
            name=f"{ip}.nat.address",
            doc=f"Source address that {ip}.nat uses; unset for that of the outgoing interface.",
            parse=address(version),
            live=True,
            needs=f"{ip}.nat is on",
        ),
        Key(
            name=f"{ip}.nat.order",
            doc="Taken for LXD's clients, without effect: our rules stand in a table of their own.",
            parse=one_of("before", "after"),
            default="before",
            live=True,
            needs=f"{ip}.nat is on",
        ),
        Key(
            name=f"{ip}.dhcp",
            doc="Whether instances get their IPv4 address from the bridge."
            if version == 4
            else "Whether the bridge announces itself, so that instances can configure IPv6.",
            parse=boolean,
            default="true",
            live=True,
            needs=has_address,
        ),
        Key(
            name=f"{ip}.dhcp.ranges",
            doc="Ranges (`first-last`, by commas) that dynamic leases come from; unset for the whole subnet.",
            parse=list_of(address_range(version)),
            live=True,
            needs=has_dhcp if version == 4 else "ipv6.dhcp.stateful is on",
        ),
        Key(
            name=f"{ip}.dhcp.expiry",
            doc="How long a lease lasts.",
            parse=duration,
            default="1h",
            live=True,
            needs=has_dhcp,
        ),
        Key(
            name=f"{ip}.routes",
            doc=f"Further {what} subnets (by commas) that the host sends into the bridge.",
            parse=list_of(cidr(version)),
            live=True,
            needs=has_address,
        ),
        Key(
            name=f"{ip}.routing",
            doc=f"Whether the host forwards {what} traffic into and out of the network.",
            parse=boolean,
            default="true",
            live=True,
            needs=has_address,
        ),
        Key(
            name=f"{ip}.firewall",
            doc="Whether rules are made that let DHCP, DNS and forwarded traffic through.",
            parse=boolean,
            default="true",
            live=True,
            needs=has_address,
        ),
    ]


BRIDGE = KeyTable("bridge network", [
    Key(
        name="bridge.driver",
        doc="What makes the bridge; only the kernel's own (`native`) is supported.",
        parse=one_of("native"),
        default="native",
    ),
    Key(
        name="bridge.mode",
        doc="How the bridge gets its subnet; only `standard` is supported.",
        parse=one_of("standard"),
        default="standard",
    ),
    Key(
        name="bridge.mtu",
        doc="Largest packet, in bytes, of the bridge and of the instances on it.",
        parse=integer(1280, 65535),
        default="1500",
        live=True,
    ),
    Key(
        name="bridge.hwaddr",
        doc="MAC address of the bridge; unset for one that each member picks and keeps.",
        parse=mac_address,
        live=True,
    ),
    Key(
        name="bridge.external_interfaces",
        doc="Interfaces of the host (by commas), without addresses of their own, to put into the bridge.",
        parse=list_of(interface_name),
        live=True,
        per_member=True,
    ),
    *_family(4),
    Key(
        name="ipv4.dhcp.gateway",
        doc="Gateway that DHCP announces; unset for the bridge itself.",
        parse=address(4),
        live=True,
        needs="ipv4.dhcp is on",
    ),
    *_family(6),
    Key(
        name="ipv6.dhcp.stateful",
        doc="Whether IPv6 addresses are leased by DHCP in place of instances forming their own.",
        parse=boolean,
        default="false",
        live=True,
        needs="ipv6.dhcp is on",
    ),
    Key(
        name="dns.mode",
        doc="Which names resolve: those of instances (`managed`), those clients send (`dynamic`), or `none`.",
        parse=one_of("managed", "dynamic", "none"),
        default="managed",
        live=True,
    ),
    Key(
        name="dns.domain",
        doc="Domain that DHCP announces and that instances' names are in.",
        parse=domain,
        default="lxd",
        live=True,
    ),
    Key(
        name="dns.search",
        doc="Domains (by commas) for clients to search; unset for `dns.domain`.",
        parse=list_of(domain),
        live=True,
    ),
    Key(
        name="raw.dnsmasq",
        doc="Lines for dnsmasq's configuration, after all that is made from the other keys.",
        live=True,
    ),
    Key(name="user.*", doc="Free for users' own notes."),
    Key(name="volatile.*", doc="What the daemon remembers."),
])  # fmt: skip

FORWARD = KeyTable("network forward", [
    Key(name="target_address", doc="Where all goes that no port of the forward takes.", parse=address()),
    Key(name="user.*", doc="Free for users' own notes."),
])  # fmt: skip

TABLES: dict[str, KeyTable] = {"bridge": BRIDGE}
"""By network type."""


def check_network(type_: str, name: str, config: Mapping[str, str]) -> None:
    """Raises Invalid for an unknown type, a bad name, an unknown key, or values that do not fit together."""
    if type_ not in TABLES:
        known = ", ".join(sorted(TABLES))
        raise Invalid(f'Unsupported network type "{type_}"; known: {known}', key="type")
    try:
        network_name(name)
    except ValueError as wanted:
        raise Invalid(f'Invalid network name: "{name}" is not {wanted}', key="name") from None
    TABLES[type_].check(config)
    for version in (4, 6):
        _check_family(config, f"ipv{version}")


def interface_of(config: Mapping[str, str], ip: str) -> Interface | None:
    """The bridge's address in the family `ip` ("ipv4", "ipv6"); None for none, unset or not chosen yet."""
    value = config.get(f"{ip}.address", "")
    return None if value in ("", "none", "auto") else ip_interface(value)


def on(config: Mapping[str, str], key: str) -> bool:
    """A boolean key of a checked config, with its default."""
    return bool(BRIDGE.parsed(config, key))


def items(config: Mapping[str, str], key: str) -> tuple[str, ...]:
    """The parts of a list key."""
    return tuple(part.strip() for part in config.get(key, "").split(",") if part.strip())


def _check_family(config: Mapping[str, str], ip: str) -> None:
    own = interface_of(config, ip)
    if own is None:
        return
    subnet = own.network
    key = f"{ip}.address"
    if own.version == 6 and subnet.prefixlen > 64:
        raise BadValue(f"Invalid value for {key}: the subnet of {own} is smaller than a /64", key=key)
    ends = (subnet.network_address, subnet.broadcast_address)
    if own.ip == ends[0] or (own.version == 4 and own.ip == ends[1] and subnet.prefixlen < 31):
        raise BadValue(f"Invalid value for {key}: {own.ip} is not a host's address in {subnet}", key=key)
    key = f"{ip}.dhcp.ranges"
    for part in items(config, key):
        for end in part.split("-"):
            if ip_address(end.strip()) not in subnet:
                raise BadValue(f"Invalid value for {key}: {end.strip()} is not in {subnet}", key=key)
