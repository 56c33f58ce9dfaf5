"""What the types of NIC have in common: options, addresses, names."""

import hashlib
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from random import SystemRandom

from cluster.errors import Conflict, Invalid
from lxdpy.config.key import Key
from lxdpy.config.network import items
from lxdpy.config.types import boolean, cidr, integer, interface_name, list_of, mac_address
from lxdpy.host.devices.driver import Options, Seat
from lxdpy.host.network.bridge import random_hwaddr
from lxdpy.host.network.veth import random_name

OWN = (
    Key(name="type", doc="`nic`."),
    Key(name="nictype", doc="Kind of NIC; not with `network`, whose type decides."),
    Key(
        name="name",
        doc="Name of the interface in the instance; unset for the next free `ethN`.",
        parse=interface_name,
    ),
    Key(name="hwaddr", doc="MAC address; unset for one drawn once and kept.", parse=mac_address),
    Key(
        name="mtu",
        doc="Largest packet, in bytes; unset for that of what the NIC is connected to.",
        parse=integer(576, 65535),
    ),
    Key(
        name="boot.priority",
        doc="Accepted for profiles shared with virtual machines; of no effect.",
        parse=integer(0),
    ),
)
"""Of all NICs."""

COMMON = (
    *OWN,
    Key(
        name="host_name",
        doc="Name of the end that stays on the host; unset for one drawn at each start.",
        parse=interface_name,
    ),
    Key(
        name="ipv4.routes",
        doc="IPv4 subnets (by commas) that the host sends to the NIC.",
        parse=list_of(cidr(4)),
    ),
    Key(
        name="ipv6.routes",
        doc="IPv6 subnets (by commas) that the host sends to the NIC.",
        parse=list_of(cidr(6)),
    ),
)
"""Of NICs that have an end on the host."""

PARENT = Key(name="parent", doc="Interface of the host that the NIC is made on, or of.", parse=interface_name)


def check_parent(options: Options) -> None:
    """Raises Invalid for a NIC that needs an interface of the host and names none."""
    if not options.get("parent"):
        raise refuse('"parent" is needed: the name of an interface of the host', "parent")


def inside_name(seat: Seat) -> str:
    """What the interface is called in the container, as far as it is known."""
    return seat.options.get("name") or seat.volatile.get("name", "")


def hwaddr_of(seat: Seat) -> str:
    """The option's, else the one this NIC has had, else a new one."""
    known = seat.options.get("hwaddr") or seat.volatile.get("hwaddr")
    return (known or random_hwaddr(SystemRandom())).lower()


def host_name_of(seat: Seat) -> str:
    """The option's, else that of the last start (so that a repeated start finds its own), else a new one."""
    return seat.options.get("host_name") or seat.volatile.get("host_name") or random_name()


def end_of(seat: Seat) -> str:
    """The end on the host of a NIC that is in use. Raises Conflict if its name was lost."""
    if known := seat.volatile.get("host_name"):
        return known
    raise Conflict(f"The host's end of {seat.name} is not known; restart the instance", device=seat.name)


def owner_of(seat: Seat) -> str:
    """Mark on the host's end, by which it is known whose it is."""
    return f"lxdpy {seat.instance} {seat.name}"


def filter_of(seat: Seat) -> str:
    """Name for the NIC's filter: the same at each start, so that no old one can be left behind."""
    return f"nic_{hashlib.sha256(owner_of(seat).encode()).hexdigest()[:12]}"


def routes_of(options: Options) -> tuple[str, ...]:
    """Both families', in the kernel's spelling."""
    found = [
        subnet
        for family in ("ipv4", "ipv6")
        for key in (f"{family}.routes", f"{family}.routes.external")
        for subnet in items(options, key)
    ]
    return tuple(str(ip_network(one, strict=False)) for one in found)


def fixed_addresses(devices: Mapping[str, Options]) -> tuple[str, ...]:
    """Of all NICs among an instance's devices, by the names of these; in the usual spelling."""
    found = [
        str(ip_address(address))
        for _, options in sorted(devices.items())
        if options.get("type") == "nic"
        for family in ("ipv4", "ipv6")
        for address in items(options, f"{family}.address")
        if address not in ("auto", "none")
    ]
    return tuple(found)


def is_on(options: Options, name: str) -> bool:
    """A boolean option, off when unset."""
    return bool(value) and bool(boolean(value)) if (value := options.get(name, "")) else False


def refuse(message: str, option: str) -> Invalid:
    """The error for options that do not fit together."""
    return Invalid(f"nic device: {message}", key=option)
