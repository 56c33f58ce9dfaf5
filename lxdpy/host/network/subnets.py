"""Choosing private subnets that nothing uses yet. Pure: the source of random numbers is passed in."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import Protocol

from cluster.errors import Exhausted

Subnet = IPv4Network | IPv6Network

TRIES = 500  # with half of 10/8 in use, the chance to miss every time is 2^-500


class Dice(Protocol):
    """What we need of random.Random."""

    def randint(self, a: int, b: int) -> int: ...


def choose_ipv4(dice: Dice, used: Iterable[str]) -> str:
    """A bridge address, 10.x.y.1/24, whose subnet overlaps none of `used` (CIDR). Raises Exhausted."""
    return _choose((f"10.{dice.randint(0, 255)}.{dice.randint(0, 255)}.1/24" for _ in range(TRIES)), used, 4)


def choose_ipv6(dice: Dice, used: Iterable[str]) -> str:
    """A bridge address in fd42::/16, xxxx:…::1/64, as LXD makes them. Raises Exhausted."""
    parts = (":".join(f"{dice.randint(1, 0xFFFF):x}" for _ in range(3)) for _ in range(TRIES))
    return _choose((f"fd42:{part}::1/64" for part in parts), used, 6)


def completed(config: Mapping[str, str], dice: Dice, used: Iterable[str]) -> dict[str, str]:
    """A new bridge's config with its addresses chosen where they are unset or `auto`.

    As LXD does: a chosen subnet gets NAT unless the config says otherwise, for nothing routes to it.
    """
    taken, filled = list(used), dict(config)
    for ip, choose in (("ipv4", choose_ipv4), ("ipv6", choose_ipv6)):
        if filled.get(f"{ip}.address", "auto") in ("", "auto"):
            filled[f"{ip}.address"] = choose(dice, taken)
            filled[f"{ip}.nat"] = filled.get(f"{ip}.nat") or "true"
    return filled


def _choose(candidates: Iterable[str], used: Iterable[str], version: int) -> str:
    taken = [ip_interface(one).network for one in used]
    for candidate in candidates:
        subnet = ip_interface(candidate).network
        if not any(_overlap(subnet, other) for other in taken):
            return candidate
    raise Exhausted(f"No free IPv{version} subnet was found; set ipv{version}.address")


def _overlap(one: Subnet, other: Subnet) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)
