"""NICs in VLANs: on a VLAN of an interface of the host, or in some of a bridge's."""

import asyncio
from collections.abc import Iterable

from lxdpy.config.key import Key
from lxdpy.config.types import boolean, either, integer, list_of, one_of
from lxdpy.host.devices.driver import Options, Seat
from lxdpy.host.devices.nic import is_on, owner_of, refuse
from lxdpy.host.network import vlan
from lxdpy.host.network.bridge_vlans import Membership

NUMBER = integer(1, 4094)  # 0 and 4095 are no VLANs: IEEE 802.1Q
NONE = "none"


def numbers(value: str) -> tuple[int, ...]:
    """One (`7`) or a range (`100-105`)."""
    first, dash, last = value.partition("-")
    try:
        low = int(str(NUMBER(first)))
        high = int(str(NUMBER(last))) if dash else low
    except ValueError:
        low, high = 1, 0
    if high < low:
        raise ValueError("a VLAN from 1 to 4094, or a range of them such as 100-105")
    return tuple(range(low, high + 1))


OF_PARENT = (
    Key(
        name="vlan",
        doc="VLAN of the parent that the NIC is in; its interface is made when there is none.",
        parse=NUMBER,
        needs="parent",
    ),
    Key(
        name="gvrp",
        doc="Whether the switch is told by GVRP that the host is in the VLAN.",
        parse=boolean,
        default="false",
        needs="vlan",
    ),
)
OF_BRIDGE = (
    Key(
        name="vlan",
        doc="VLAN of what the instance sends without a tag; `none` drops that, unset is the bridge's own.",
        parse=either(one_of(NONE), NUMBER),
        needs="a managed network, or a bridge with `vlan_filtering`",
    ),
    Key(
        name="vlan.tagged",
        doc="VLANs (by commas, ranges as `100-105`) that the instance may use by tagging what it sends.",
        parse=list_of(numbers),
        needs="a managed network, or a bridge with `vlan_filtering`",
    ),
)


def check_vlan(options: Options) -> None:
    """Raises Invalid for a VLAN of nothing, or GVRP for none."""
    if options.get("vlan") and not options.get("parent"):
        raise refuse(f'"vlan={options["vlan"]}" needs "parent"', "vlan")
    if is_on(options, "gvrp") and not options.get("vlan"):
        raise refuse(f'"gvrp={options["gvrp"]}" needs "vlan"', "gvrp")


def check_membership(options: Options) -> None:
    """Raises Invalid for a VLAN that is to be both."""
    wanted = membership_of(options)
    if wanted.untagged and wanted.untagged in wanted.tagged:
        said = f'"vlan.tagged={options["vlan.tagged"]}" has {wanted.untagged}, which "vlan" says is untagged'
        raise refuse(said, "vlan.tagged")


def membership_of(options: Options) -> Membership:
    """Of a port of a bridge."""
    own, tagged = options.get("vlan", ""), options.get("vlan.tagged", "")
    untagged = (0 if own == NONE else int(own)) if own else None
    return Membership(untagged=untagged, tagged=tuple(sorted({*_all(tagged.split(","))})) if tagged else ())


def _all(parts: Iterable[str]) -> Iterable[int]:
    for part in parts:
        yield from numbers(part.strip())


async def hold(seat: Seat) -> str:
    """The parent, or its VLAN, which is there from now on; "" for no parent. Raises as `vlan.hold`."""
    parent, number = seat.options.get("parent", ""), seat.options.get("vlan")
    if not number:
        return parent
    gvrp = is_on(seat.options, "gvrp")
    return await asyncio.to_thread(vlan.hold, owner_of(seat), parent, int(number), gvrp=gvrp)


async def held(seat: Seat) -> str:
    """What `hold` said."""
    parent, number = seat.options.get("parent", ""), seat.options.get("vlan")
    return await asyncio.to_thread(vlan.name_of, parent, int(number)) if number else parent


async def release(seat: Seat) -> None:
    """Idempotent."""
    if seat.options.get("vlan"):
        await asyncio.to_thread(vlan.release, owner_of(seat))
