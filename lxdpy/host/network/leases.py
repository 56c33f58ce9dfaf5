"""Static entries for dnsmasq, and who has which address: dnsmasq's files, read and written. Blocking."""

import os
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import quote, unquote

from lxdpy.config.network import interface_of, on
from lxdpy.host.network.driver import Host, Lease, Network

HARDWARE_DUIDS = ("00:01:00:01", "00:03:00:01")  # RFC 8415, 11.2 and 11.4, on Ethernet: the MAC comes last


def file_name(instance: str, device: str) -> str:
    """Of a NIC's entry: "project%2Fname.device", in which dots and slashes of the parts are quoted."""
    return ".".join(quote(part, safe="").replace(".", "%2E") for part in (instance, device))


def _instance_of(name: str) -> str:
    """The instance's name, from that of its entry."""
    return unquote(name.partition(".")[0]).rpartition("/")[2]


def line_of(host: Host, mode: str) -> str:
    """A line of dhcp-hostsdir: MAC, addresses, and in mode `managed` the name."""
    parts = [host.hwaddr.lower(), host.ipv4, f"[{host.ipv6}]" if host.ipv6 else ""]
    return ",".join([*filter(None, parts), *([host.name] if mode == "managed" else [])]) + "\n"


def write_host(folder: Path, host: Host, mode: str) -> bool:
    """Whether dnsmasq must read again: an entry that was there has changed."""
    path = folder / file_name(host.instance, host.device)
    line = line_of(host, mode)
    before = path.read_text() if path.exists() else None
    if before == line:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{path.name}"  # dnsmasq skips names with a dot in front
    draft.write_text(line)
    draft.chmod(0o644)
    draft.rename(path)
    return before is not None


def write_hosts(folder: Path, hosts: Iterable[Host], mode: str) -> bool:
    """Have exactly these entries; whether dnsmasq must read again."""
    wanted = {file_name(host.instance, host.device): host for host in hosts}
    again = [write_host(folder, host, mode) for host in wanted.values()]
    return any([*again, *(remove_host(folder, name) for name in _names(folder) if name not in wanted)])


def remove_host(folder: Path, name: str) -> bool:
    """Whether it was there."""
    path = folder / name
    if not path.exists():
        return False
    path.unlink()
    return True


def _names(folder: Path) -> list[str]:
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(name for name in found if not name.startswith("."))


def leases_of(network: Network, hosts_folder: Path, lease_file: Path) -> tuple[Lease, ...]:
    """The bridge's own addresses, the static ones of instances, then those given out, as LXD lists them."""
    found = [*_gateways(network)]
    static, names = _static(network.config, hosts_folder)
    found += static
    known = {(lease.hwaddr, lease.address) for lease in found}
    for lease in _dynamic(_text(lease_file), names):
        if (lease.hwaddr, lease.address) not in known:
            known.add((lease.hwaddr, lease.address))
            found.append(lease)
    return tuple(found)


def _gateways(network: Network) -> Iterable[Lease]:
    for ip in ("ipv4", "ipv6"):
        if own := interface_of(network.config, ip):
            yield Lease(hostname=f"{network.name}.gw", hwaddr="", address=str(own.ip), type="gateway")


def _static(config: Mapping[str, str], folder: Path) -> tuple[list[Lease], dict[str, str]]:
    """Leases of the entries, with the IPv6 addresses that instances form themselves; and names by MAC."""
    found: list[Lease] = []
    names: dict[str, str] = {}
    six = interface_of(config, "ipv6")
    forms_own = six and six.network.prefixlen == 64 and not on(config, "ipv6.dhcp.stateful")
    for name in _names(folder):
        hwaddr, *rest = _text(folder / name).strip().split(",")
        if not hwaddr:
            continue
        addresses = [part.strip("[]") for part in rest if ":" in part or part.replace(".", "").isdigit()]
        # The instance's name is the last part of a line, or, when it is not to resolve, in the file's name.
        host = next((part for part in rest if part.strip("[]") not in addresses), "")
        names[hwaddr] = host or _instance_of(name)
        found += [
            Lease(hostname=names[hwaddr], hwaddr=hwaddr, address=one, type="static") for one in addresses
        ]
        if six and forms_own and not any(":" in one for one in addresses):
            own = eui64(str(six.network.network_address), hwaddr)
            found.append(Lease(hostname=names[hwaddr], hwaddr=hwaddr, address=own, type="dynamic"))
    return found, names


def _text(file: Path) -> str:
    """Of what may just go: nobody keeps it from that."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def eui64(network: str, hwaddr: str) -> str:
    """The address that an interface forms itself in a /64. RFC 4291, appendix A."""
    mac = bytes.fromhex(hwaddr.replace(":", ""))
    part = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return str(IPv6Address(int(IPv6Address(network)) | int.from_bytes(part)))


def _dynamic(text: str, names: Mapping[str, str]) -> Iterable[Lease]:
    """Lines "expiry mac address name client-id"; for IPv6 "expiry iaid address name duid"."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        _, hwaddr, address, name, client = fields[:5]
        if ":" in address:
            hwaddr = client[-17:] if client.startswith(HARDWARE_DUIDS) else ""
        hostname = names.get(hwaddr, "" if name == "*" else name)
        yield Lease(hostname=hostname, hwaddr=hwaddr, address=address, type="dynamic")
