"""Firewall rules, one nftables table per network and per filtered NIC, so that each is replaced in one step.

A table of ours can only refuse; what another table drops stays dropped, whatever ours accepts. So the accept
rules matter where an administrator gives our chains a stricter policy, and document what the network needs.
"""

from collections.abc import Mapping, Sequence

from lxdpy.config.network import Interface, interface_of, on
from lxdpy.host.network.driver import Network
from lxdpy.host.network.forwards import forward_rules
from lxdpy.host.run import CommandFailed, run

SMALLEST_BURST = 65536  # bytes; a packet joined by the sender's card can be that large


def table_of(name: str) -> str:
    """Of a network or of a NIC's filter."""
    return f"lxdpy_{name}"


def rules_of(network: Network) -> str:
    """The nft script that makes a managed bridge's table as its config says, in one transaction. Pure."""
    name, config = network.name, network.config
    chains: dict[str, list[str]] = {"input": [], "output": [], "forward": [], "postrouting": []}
    for ip in ("ipv4", "ipv6"):
        own = interface_of(config, ip)
        if own is None:
            continue
        if on(config, f"{ip}.firewall"):
            _service(chains, name, own)
            verdict = "accept" if on(config, f"{ip}.routing") else "reject"
            chains["forward"] += [
                f'{side} "{name}" meta nfproto {ip} {verdict}' for side in ("iifname", "oifname")
            ]
        if on(config, f"{ip}.nat"):
            chains["postrouting"].append(_nat(config.get(f"{ip}.nat.address", ""), own))
    for chain, rules in forward_rules(network).items():
        chains[chain] = rules + chains.get(chain, [])
    return _replace("inet", table_of(name), chains)


def _service(chains: dict[str, list[str]], name: str, own: Interface) -> None:
    """DHCP and DNS between instances and the bridge, and in IPv6 what addresses are found with."""
    ports = "53, 67" if own.version == 4 else "53, 547"
    ip = f"meta nfproto ipv{own.version}"
    chains["input"] += [
        f'iifname "{name}" {ip} udp dport {{ {ports} }} accept',
        f'iifname "{name}" {ip} tcp dport 53 accept',
    ]
    chains["output"] += [
        f'oifname "{name}" {ip} udp sport {{ {ports} }} accept',
        f'oifname "{name}" {ip} tcp sport 53 accept',
    ]
    if own.version == 6:
        both = "nd-neighbor-solicit, nd-neighbor-advert"
        chains["input"].append(f'iifname "{name}" icmpv6 type {{ nd-router-solicit, {both} }} accept')
        chains["output"].append(f'oifname "{name}" icmpv6 type {{ nd-router-advert, {both} }} accept')


def _nat(address: str, own: Interface) -> str:
    ip = "ip" if own.version == 4 else "ip6"
    verdict = f"snat {ip} to {address}" if address else "masquerade"
    return f"{ip} saddr {own.network} {ip} daddr != {own.network} {verdict}"


HOOKS = {
    "input": "type filter hook input priority filter",
    "output": "type filter hook output priority filter",
    "forward": "type filter hook forward priority filter",
    "postrouting": "type nat hook postrouting priority srcnat",
    "dstnat": "type nat hook prerouting priority dstnat",
    "outnat": "type nat hook output priority -100",
    "prerouting": "type filter hook prerouting priority filter",
}


def _replace(family: str, table: str, chains: dict[str, list[str]]) -> str:
    """Naming a table makes it if need be, so that deleting it never fails: old rules out, new ones in."""
    body = "".join(
        f"  chain {chain} {{\n    {HOOKS[chain]}; policy accept;\n"
        + "".join(f"    {rule}\n" for rule in rules)
        + "  }\n"
        for chain, rules in chains.items()
        if rules
    )
    return f"table {family} {table}\ndelete table {family} {table}\ntable {family} {table} {{\n{body}}}\n"


def filter_of(
    name: str, host_name: str, hwaddr: str, ipv4: Sequence[str] = (), ipv6: Sequence[str] = ()
) -> str:
    """The nft script for a filter that lets through `host_name` (a bridge port) only its own addresses. Pure.

    No addresses: any of that family; "none" among them: none. At prerouting, because the forward hook of a
    bridge does not see what goes to the host itself.

    Protocols are the kernel's (`meta protocol`), which looks behind a tag of a VLAN as the receiver does: by
    `ether type`, which is nft's own choice for ARP, a frame tagged with VLAN 0 would be of none of them. What
    has a second tag is dropped.
    """
    port = f'iifname "{host_name}"'
    rules = [
        f"{port} ether saddr != {hwaddr} drop",
        f"{port} meta protocol {{ 8021q, 8021ad }} drop",
        f"{port} meta protocol arp arp saddr ether != {hwaddr} drop",
    ]
    if "none" in ipv4:
        rules += [f"{port} meta protocol {{ arp, ip }} drop"]
    elif own := ", ".join(ipv4):
        rules += [
            f"{port} meta protocol arp arp saddr ip != {{ {own} }} drop",
            f"{port} ip saddr 0.0.0.0 udp dport 67 accept",
            f"{port} ip saddr != {{ {own} }} drop",
        ]
    if "none" in ipv6:
        rules += [f"{port} meta protocol ip6 drop"]
    elif own := ", ".join(ipv6):
        # The link-local address, and none while it looks whether its own is free, are needed to find others.
        rules += [
            f"{port} icmpv6 type nd-router-advert drop",
            f"{port} ip6 saddr != {{ ::, fe80::/10, {own} }} drop",
        ]
    return _replace("bridge", table_of(name), {"prerouting": rules})


def origin_of(name: str, host_name: str) -> str:
    """The nft script that drops what comes in at `host_name` from an address not routed to it. Pure."""
    rule = f'iifname "{host_name}" fib saddr . iif oif missing drop'
    return _replace("inet", table_of(name), {"prerouting": [rule]})


def limit_of(name: str, host_name: str, rate: int) -> str:
    """The nft script that drops what comes out of a container faster than `rate` (bits a second). Pure.

    At the port's ingress, where packets that go to the host count too. Dropping is rough on TCP: the burst of
    a quarter of a second lets it find its pace. The kernel need not have tc's police action.
    """
    bytes_ = max(rate // 8, 1)
    burst = max(bytes_ // 4, SMALLEST_BURST)
    table = f"netdev {table_of(name)}"
    hook = f'type filter hook ingress device "{host_name}" priority 0; policy accept;'
    rule = f"limit rate over {bytes_} bytes/second burst {burst} bytes drop"
    return (
        f"table {table}\ndelete table {table}\n"
        f"table {table} {{\n  chain ingress {{\n    {hook}\n    {rule}\n  }}\n}}\n"
    )


def priority_of(name: str, priority: int, ends: Mapping[str, str]) -> str:
    """The nft script that gives what comes in at ports (each with the MAC behind it) a priority. Pure.

    What is bridged has it from there on. What is routed is given it once more, as the kernel then makes one
    of the packet's own type of service; what came through a bridge is known by its address by then.
    """
    ports, senders = ", ".join(f'"{one}"' for one in ends), ", ".join(filter(None, ends.values()))
    verdict = f"meta priority set 0:{priority:x}"  # as tc(8) writes them
    at_ports = f"iifname {{ {ports} }} {verdict}"
    routed = [at_ports, *([f"ether saddr {{ {senders} }} {verdict}"] if senders else [])]
    bridged = _replace("bridge", table_of(name), {"prerouting": [at_ports]})
    return bridged + _replace("inet", table_of(name), {"forward": routed})


async def apply(script: str) -> None:
    """Raises CommandFailed, Unsupported."""
    await run("nft", "-f", "-", stdin=script, timeout=30)


async def remove(family: str, name: str) -> None:
    """Remove the table of a network ("inet"), a filter ("bridge") or a limit ("netdev"), if it is there."""
    table = table_of(name)
    try:
        await run("nft", "delete", "table", family, table, timeout=30)
    except CommandFailed:
        # nft has no "if exists" before 1.0.7, and its words must not be matched: ask what is there.
        shown = await run("nft", "list", "tables", timeout=30)
        if f"table {family} {table}" in shown.stdout.splitlines():
            raise
