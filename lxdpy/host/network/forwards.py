"""PURE: the firewall's rules of a network's forwards, for the table of the network."""

from collections.abc import Iterator
from ipaddress import ip_address

from lxdpy.host.network.driver import Forward, Network


def forward_rules(network: Network) -> dict[str, list[str]]:
    """By chain. Ports come before whole addresses: the first rule that fits decides.

    What an instance sends to itself by way of the host comes back as from the host: it would not take an
    answer from its own address.
    """
    known = sorted(network.forwards, key=lambda forward: not forward.ports)
    there = [rule for forward in known for rule in _there(forward)]
    targets = sorted({forward.target for forward in known})
    back = [f"{_ip(t)} saddr {t} {_ip(t)} daddr {t} ct status dnat masquerade" for t in targets]
    return {"dstnat": there, "outnat": there, "postrouting": back}


def _there(forward: Forward) -> Iterator[str]:
    ip = _ip(forward.target)
    here = f"{ip} daddr {forward.listen}"
    if not forward.ports:
        yield f"{here} dnat {ip} to {forward.target}"
        return
    to = f"[{forward.target}]" if ip == "ip6" and forward.to_port else forward.target
    port = f":{forward.to_port}" if forward.to_port else ""
    yield f"{here} {forward.protocol} dport {{ {forward.ports} }} dnat {ip} to {to}{port}"


def _ip(address: str) -> str:
    return "ip" if ip_address(address).version == 4 else "ip6"
