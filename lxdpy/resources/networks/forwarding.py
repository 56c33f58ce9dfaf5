"""PURE: what a network's forwards may say, and what it means to the member that has them."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from cluster.errors import Invalid
from lxdpy.config.network import FORWARD, interface_of, items
from lxdpy.host.network.driver import Forward as HostForward
from lxdpy.resources.networks.model import Forward, ForwardPort, NetworkMember

Ports = tuple[int, ...]

HIGHEST = 65535
PROTOCOLS = ("tcp", "udp")
MOST_PAIRS = 1024  # ports that go to as many others: each has a rule of its own


def check(listen: str, forward: Forward, config: Mapping[str, str]) -> None:
    """Raises Invalid, naming what is wrong. `config` is the network's."""
    FORWARD.check(forward.config)
    version = ip_address(listen).version
    if interface_of(config, f"ipv{version}") is None:
        raise Invalid(
            f'The network has no IPv{version} address, "{listen}" leads nowhere', key="listen_address"
        )
    target = forward.config.get("target_address", "")
    if target and not _reaches(listen, target, config):
        raise Invalid("Default target address is not within the network subnet", key="target_address")
    taken: set[tuple[str, int]] = set()
    for place, port in enumerate(forward.ports):
        where = f"port specification {place}"
        if port.protocol not in PROTOCOLS:
            raise Invalid(
                f"Invalid port protocol in {where}, protocol must be one of: {', '.join(PROTOCOLS)}"
            )
        address_of(f"target address in {where}", port.target_address)
        if not _reaches(listen, port.target_address, config):
            raise Invalid(f"Target address is not within the network subnet in {where}")
        numbers = _targets(port, where)
        for number, _ in numbers:
            if (port.protocol, number) in taken:
                raise Invalid(f'Duplicate listen port {number} for protocol "{port.protocol}" in {where}')
            taken.add((port.protocol, number))


def address_of(what: str, text: str) -> str:
    """In its usual spelling. Raises Invalid."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise Invalid(f'Invalid {what}: "{text}" is not an IP address', value=text) from None


def _reaches(listen: str, target: str, config: Mapping[str, str]) -> bool:
    """Whether the target is of the same version of IP and in a subnet of the network."""
    ip = f"ipv{ip_address(listen).version}"
    own, found = interface_of(config, ip), ip_address(target)
    if own is None or found.version != own.version:
        return False
    return found in own.network or any(found in network for network in _routed(config, ip))


def _routed(config: Mapping[str, str], ip: str) -> Iterator[IPv4Network | IPv6Network]:
    return (ip_network(route, strict=False) for route in items(config, f"{ip}.routes"))


def _targets(port: ForwardPort, where: str) -> list[tuple[int, int]]:
    """Listen ports and what each becomes; 0 for itself."""
    listen, target = _numbers(port.listen_port, where), _numbers(port.target_port, where)
    if not listen:
        raise Invalid(f"Missing listen port in {where}")
    if len(target) in (0, 1):
        return [(number, target[0] if target else 0) for number in listen]
    if len(listen) != len(target):
        raise Invalid(f"Mismatch of listen port(s) and target port(s) count in {where}")
    if len(listen) > MOST_PAIRS:
        raise Invalid(f"At most {MOST_PAIRS} ports can go to as many others in {where}")
    return list(zip(listen, target, strict=True))


def _numbers(text: str, where: str) -> Ports:
    """Of `80,90-92`."""
    found: list[int] = []
    for part in items({"": text}, ""):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise Invalid(f'Invalid port "{part}" in {where}: a number or a range such as 80-90', value=part)
        low, high = int(first), int(last or first)
        if not 0 < low <= high <= HIGHEST:
            raise Invalid(f'Invalid port "{part}" in {where}: from 1 to {HIGHEST}, in order', value=part)
        found += range(low, high + 1)
    return tuple(found)


def host_forwards(own: NetworkMember) -> tuple[HostForward, ...]:
    """What the member does for the forwards it has."""
    return tuple(one for listen, row in sorted(own.forwards.items()) for one in _of_one(listen, row))


def _of_one(listen: str, row: Forward) -> Iterator[HostForward]:
    for port in row.ports:
        pairs = _targets(port, port.listen_port)
        if len({target for _, target in pairs}) == 1:
            text = ", ".join(items({"": port.listen_port}, ""))
            yield HostForward(
                listen=listen, target=port.target_address, protocol=port.protocol, ports=text,
                to_port=pairs[0][1],
            )  # fmt: skip
            continue
        for number, target in pairs:
            yield HostForward(
                listen=listen, target=port.target_address, protocol=port.protocol, ports=str(number),
                to_port=target,
            )  # fmt: skip
    if default := row.config.get("target_address", ""):
        yield HostForward(listen=listen, target=default)
