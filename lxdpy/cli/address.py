"""At which address the others reach this server, when nobody has said so."""

import asyncio
from typing import Any

from cluster.errors import Invalid
from lxdpy.client.client import Client
from lxdpy.host.network.links import IFF_LOOPBACK, Links

PORT = 8443
WILDCARDS = ("", "0.0.0.0", "[::]", "::", "*")


async def own_address(client: Client, asked: str | None) -> str:
    """What was asked for, else what is configured, else the first address of this host.

    A configured wildcard gives the port only: others cannot dial it. Raises Invalid if there is none.
    """
    if asked:
        return asked
    config = (await client.ask("GET", "/1.0"))["config"]
    configured = str(config.get("cluster.https_address") or config.get("core.https_address") or "")
    host, colon, port = configured.rpartition(":")
    if not colon or configured.endswith("]"):  # an address without a port
        host, port = configured, str(PORT)
    if host not in WILDCARDS:
        return configured
    managed = {row["name"] for row in await networks(client)}
    return f"{await asyncio.to_thread(first_address, managed)}:{port}"


async def networks(client: Client) -> list[dict[str, Any]]:
    """The managed ones."""
    return [row for row in await client.ask("GET", "/1.0/networks", recursion=1) if row["managed"]]


def first_address(managed: set[str]) -> str:
    """The first global address of an interface that is up and leads out of this host; IPv4 before IPv6."""
    with Links() as links:
        found = [
            address
            for link in links.all()
            if link.up and not link.flags & IFF_LOOPBACK and link.name not in managed
            for address in links.addresses(link.index)
            if address.scope == "global"
        ]
    best = min(found, key=lambda address: ":" in address.address, default=None)
    if best is None:
        raise Invalid("This host has no address that others can reach: give one with --address")
    return f"[{best.address}]" if ":" in best.address else best.address
