"""Network interfaces of containers, asked of the kernel by netlink: about 0.2 ms a container.

For a process of one thread (`lxdpy.host.lxc.helper`): it steps into the container's network namespace only to
make the socket, which stays there, and steps back. Nothing is run inside, so a container cannot slow it down.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

from lxdpy.host.mounts import CLONE_NEWNET, setns

# include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_STATS64 = 1, 3, 4, 5, 23
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT = 1, 2, 8, 16
LOOPBACK_6 = bytes(15) + b"\1"
KINDS = ((IFF_LOOPBACK, "loopback"), (IFF_POINTOPOINT, "point-to-point"), (IFF_BROADCAST, "broadcast"))

COUNTERS = (
    "packets_received", "packets_sent", "bytes_received", "bytes_sent",
    "errors_received", "errors_sent", "packets_dropped_inbound", "packets_dropped_outbound",
)  # fmt: skip
"""In LXD's words, in the order of struct rtnl_link_stats64."""


def networks(pids: list[int]) -> dict[str, Any]:
    """By process id (as text): interfaces by name, in the form of LXD's instance state `network`.

    Processes that are gone are left out. Leaves the process in the network namespace it was in, or raises
    SystemExit: it must not go on in a container's.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = {}
        for pid in pids:
            try:
                found[str(pid)] = _network(pid, home)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found
    finally:
        os.close(home)


def _network(pid: int, home: int) -> dict[str, Any]:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        finally:
            try:
                setns(home, CLONE_NEWNET)
            except OSError as error:
                raise SystemExit(f"cannot leave a container's network: {error}") from None
    finally:
        os.close(namespace)
    with netlink:
        netlink.settimeout(5)
        links = dict(_link(body) for body in _dump(netlink, RTM_GETLINK, RTM_NEWLINK))
        for body in _dump(netlink, RTM_GETADDR, RTM_NEWADDR):
            family, prefix, index = body[0], body[1], struct.unpack_from("=I", body, 4)[0]
            attributes = dict(_attributes(body, 8))
            if index in links and (raw := attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)):
                links[index][1]["addresses"].append(_address(family, prefix, raw))
    return dict(links.values())


def _link(body: bytes) -> tuple[int, tuple[str, dict[str, Any]]]:
    _, index, flags = struct.unpack_from("=B3xiI", body)
    attributes = dict(_attributes(body, 16))
    name = attributes[IFLA_IFNAME].rstrip(b"\0").decode()
    statistics = struct.unpack_from("=8Q", attributes.get(IFLA_STATS64, bytes(64)))
    peer = attributes.get(IFLA_LINK)
    return index, (name, {
        "addresses": [],
        "counters": dict(zip(COUNTERS, statistics, strict=True)),
        "hwaddr": attributes.get(IFLA_ADDRESS, b"").hex(":") if not flags & IFF_LOOPBACK else "",
        "host_name": _name_here(struct.unpack("=i", peer)[0]) if peer else "",
        "mtu": struct.unpack("=I", attributes[IFLA_MTU])[0],
        "state": "up" if flags & IFF_UP else "down",
        "type": next((kind for flag, kind in KINDS if flags & flag), "unknown"),
    })  # fmt: skip


def _name_here(index: int) -> str:
    """Name of the other end of a pair, which is in our own namespace."""
    try:
        return socket.if_indextoname(index) if index > 0 else ""
    except OSError:
        return ""


def _address(family: int, prefix: int, raw: bytes) -> dict[str, str]:
    kind = "inet" if family == socket.AF_INET else "inet6"
    address = socket.inet_ntop(family, raw)
    return {"family": kind, "address": address, "netmask": str(prefix), "scope": scope_of(raw)}


def scope_of(raw: bytes) -> str:
    """By the address itself; without `ipaddress`, which would be half a megabyte more to fork."""
    if raw == LOOPBACK_6 or (len(raw) == 4 and raw[0] == 127):
        return "local"
    link = raw[:2] == b"\xa9\xfe" if len(raw) == 4 else raw[0] == 0xFE and raw[1] & 0xC0 == 0x80
    return "link" if link else "global"


def _dump(netlink: socket.socket, ask: int, answer: int) -> Iterator[bytes]:
    """Bodies of all answers."""
    netlink.send(struct.pack("=IHHIIB15x", 32, ask, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, socket.AF_UNSPEC))
    while True:
        data = netlink.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", data, offset + 16)[0], "netlink")
            if kind == answer:
                yield data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
