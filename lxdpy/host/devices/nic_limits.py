"""How fast a NIC with an end on the host may send and receive, and who it may say it is."""

import asyncio

from lxdpy.config.key import Key
from lxdpy.config.types import bit_rate
from lxdpy.host.devices.driver import Options, Seat
from lxdpy.host.devices.nic import end_of, filter_of, refuse
from lxdpy.host.network import nftables, veth
from lxdpy.host.undo import Undo

SLOWEST, FASTEST = 64_000, 32 * 10**9  # bits a second


def rate(value: str) -> int:
    """Bits a second that the kernel can count: a burst must fit into 32 bits of its ticks."""
    found = bit_rate(value)
    if not SLOWEST <= found <= FASTEST:
        raise ValueError("a rate in bits a second from 64kbit to 32Gbit")
    return found


LIMITS = (
    Key(
        name="limits.ingress",
        doc="Most that the instance receives, in bits a second (`100Mbit`).",
        parse=rate,
    ),
    Key(name="limits.egress", doc="Most that the instance sends, in bits a second.", parse=rate),
    Key(name="limits.max", doc="Both `limits.ingress` and `limits.egress`.", parse=rate),
)


NAMES = frozenset(key.name for key in LIMITS)


def check_limits(options: Options) -> None:
    """Raises Invalid for limits that say two things."""
    both = options.get("limits.max")
    for one in ("limits.ingress", "limits.egress"):
        if both and options.get(one):
            raise refuse(f'"limits.max={both}" stands for both limits; unset it or "{one}"', "limits.max")


def are_set(options: Options) -> bool:
    return any(options.get(key.name) for key in LIMITS)


def limit(options: Options, name: str) -> int:
    """Bits a second; 0 for none."""
    value = options.get(name) or options.get("limits.max")
    return rate(value) if value else 0


async def hold_back(seat: Seat, host_name: str, undo: Undo) -> None:
    """Limit what comes out of the host's end. What goes in is limited where the end is made."""
    if egress := limit(seat.options, "limits.egress"):
        undo.push(nftables.remove, "netdev", filter_of(seat))
        await nftables.apply(nftables.limit_of(filter_of(seat), host_name, egress))


async def change(seat: Seat) -> None:
    """Limit a NIC that is in use as its options say now."""
    host_name = end_of(seat)
    await asyncio.to_thread(veth.set_ingress, host_name, limit(seat.options, "limits.ingress"))
    if egress := limit(seat.options, "limits.egress"):
        await nftables.apply(nftables.limit_of(filter_of(seat), host_name, egress))
    else:
        await nftables.remove("netdev", filter_of(seat))


async def let_go(seat: Seat) -> None:
    """Idempotent."""
    if limit(seat.options, "limits.egress"):
        await nftables.remove("netdev", filter_of(seat))
