"""PURE: addresses as operators write them, and as they are dialled."""

import ipaddress
import re

from cluster.errors import Invalid

PORT = 8443  # LXD's, for addresses that name none
WILDCARDS = ("", "0.0.0.0", "::")
ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:\s,/@]*))(?::(?P<port>[0-9]{1,5}))?")

Address = tuple[str, int]  # host, port; the empty host is every address of the machine


def parse_address(text: str, port: int = PORT) -> Address:
    """LXD's forms: `host`, `host:port`, `:port`, `[v6]:port`, `[v6]`, a bare IPv6 address; else Invalid."""
    text = text.strip()
    if _is_ip(text):
        return text, port
    match = ADDRESS.fullmatch(text)
    if not text or match is None or (match["v6"] and not _is_ip(match["v6"])):
        raise Invalid(f"Not an address: {text!r}")
    number = int(match["port"] or port)
    if number > 65535:
        raise Invalid(f"Not a port: {number} in {text!r}")
    return match["v6"] or match["host"], number


def concrete(text: str) -> str:
    """With its port. Raises Invalid for a wildcard, which nobody else can dial."""
    host, port = parse_address(text)
    if host in WILDCARDS:
        raise Invalid(f"Others cannot reach a wildcard address: {text}", key="core.https_address")
    return join_address((host, port))


def join_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
