"""Packets to an address of the host sent on by the kernel: nftables' destination NAT. PURE."""

from ipaddress import ip_address
from typing import NamedTuple

from lxdpy.host.network.nftables import table_of


class Redirect(NamedTuple):
    """Ports of one address to ports of another."""

    protocol: str  # tcp or udp
    listen: str
    target: str
    ports: tuple[tuple[int, int], ...]  # (listen's, target's)


def redirect_of(name: str, redirect: Redirect) -> str:
    """The nft script, in one transaction.

    What an instance sends to itself by way of the host comes back as from the host: it would not take an
    answer from its own address.
    """
    family = "ip" if ip_address(redirect.listen).version == 4 else "ip6"
    to = f"[{redirect.target}]" if family == "ip6" else redirect.target
    here = f"{family} daddr {redirect.listen} {redirect.protocol}"
    there = f"{family} saddr {redirect.target} {family} daddr {redirect.target} {redirect.protocol}"
    rules = "".join(
        f"    {here} dport {port} dnat {family} to {to}:{target}\n" for port, target in redirect.ports
    )
    back = "".join(
        f"    {there} dport {target} masquerade\n"
        for target in sorted({target for _, target in redirect.ports})
    )
    table = f"inet {table_of(name)}"
    return (
        f"table {table}\ndelete table {table}\ntable {table} {{\n"
        f"  chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n{rules}  }}\n"
        f"  chain output {{\n    type nat hook output priority -100; policy accept;\n{rules}  }}\n"
        f"  chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n{back}  }}\n"
        "}\n"
    )
