"""Where a proxy listens or connects, such as `tcp:127.0.0.1:80` or `unix:@name`. PURE."""

import re
from ipaddress import ip_address
from typing import Literal

import msgspec

MOST_PORTS = 1024  # of one device; each takes a descriptor
WHAT = "an address such as tcp:127.0.0.1:80, udp:[::1]:53,60-62, unix:/run/socket or unix:@name"
LONGEST_PATH = 107  # bytes of a unix socket's name; the kernel's sun_path has one more


class Endpoint(msgspec.Struct, frozen=True):
    """One side of a proxy."""

    kind: Literal["tcp", "udp", "unix"]
    host: str  # an IP address; for unix the path, or "@" and the name of an abstract socket
    ports: tuple[int, ...] = ()  # none for unix

    @property
    def is_path(self) -> bool:
        return self.kind == "unix" and not self.host.startswith("@")


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy does. Ids are those of the side they concern: an instance's are as seen inside."""

    bind: Literal["host", "instance"]
    listen: Endpoint
    connect: Endpoint  # with as many ports as `listen`, unless one side has none
    owner: tuple[int, int, int] = (0, 0, 0o644)  # uid, gid, mode of the file of a unix socket
    security: tuple[int, int] = (0, 0)  # uid, gid that it connects as
    header: bool = False  # of the PROXY protocol


def endpoint(value: str) -> Endpoint:
    """For `Key.parse`."""
    kind, _, rest = value.partition(":")
    if kind == "unix":
        if not re.fullmatch(r"(?:/|@)[^\0]+", rest) or len(rest.encode()) > LONGEST_PATH:
            raise ValueError(f"{WHAT} (a path, or a name after @, of at most {LONGEST_PATH} bytes)")
        return Endpoint("unix", rest)
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9,-]+)", rest)
    if found is None or (kind != "tcp" and kind != "udp"):
        raise ValueError(WHAT)
    try:
        host = ip_address(found[1] or found[2])
    except ValueError:
        raise ValueError(f"{WHAT} (an IP address, in brackets if IPv6)") from None
    return Endpoint("tcp" if kind == "tcp" else "udp", str(host), ports(found[3]))


def ports(text: str) -> tuple[int, ...]:
    """From `80,8000-8010`, in the order written. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < low <= high < 65536:
            raise ValueError(f"{WHAT} (ports from 1 to 65535, a range from the lower to the higher)")
        found += range(low, high + 1)
    if len(found) > MOST_PORTS:
        raise ValueError(f"{WHAT} (at most {MOST_PORTS} ports)")
    return tuple(found)


def is_wildcard(side: Endpoint) -> bool:
    return side.kind != "unix" and ip_address(side.host).is_unspecified
