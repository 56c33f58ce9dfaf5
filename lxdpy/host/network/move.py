"""Handing an interface of the host to a running container, setting it up there, and taking it out again."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from lxdpy.host.run import run

BEHIND = "1024"  # metric of routes; DHCP clients use up to 1000


async def move_into(init: int, link: str, name: str) -> None:
    """Move interface `link` into the network namespace of process `init`, where it is called `name`.

    It comes down on the way; the container's own network configuration brings it up. Raises CommandFailed.
    """
    await run("ip", "link", "set", "dev", link, "netns", str(init), "name", name)


async def set_up(init: int, name: str, addresses: Iterable[str], gateways: Iterable[str]) -> None:
    """Give an interface in there addresses, and routes to all by way of `gateways`. Raises CommandFailed."""
    inside = ("nsenter", "--net", "--target", str(init), "ip")
    for address in addresses:
        await run(*inside, "addr", "replace", address, "dev", name, *(["nodad"] if ":" in address else []))
    await run(*inside, "link", "set", "dev", name, "up")
    for gateway in gateways:
        family = "-6" if ":" in gateway else "-4"
        await run(*inside, family, "route", "replace", gateway, "dev", name)
        # Behind any other: a default route that the instance has by DHCP stays the first.
        last = ("dev", name, "metric", BEHIND)
        await run(*inside, family, "route", "replace", "default", "via", gateway, *last)


async def move_out(init: int, name: str, link: str) -> None:
    """Move what is called `name` in there back to the host as `link`; fine if it is not there.

    Of the container only its network is entered, for as long as a program of the host runs.
    """
    await _take(("nsenter", "--net", "--target", str(init), "ip"), name, link)


async def move_out_of(pinned: Path, name: str, link: str) -> None:
    """`move_out` of a namespace that was kept (`pin`)."""
    await _take(("nsenter", f"--net={pinned}", "ip"), name, link)


async def _take(inside: tuple[str, ...], name: str, link: str) -> None:
    shown = await run(*inside, "-json", "link", "show")
    if any(one.get("ifname") == name for one in json.loads(shown.stdout)):
        await run(*inside, "link", "set", "dev", name, "down")
        await run(*inside, "link", "set", "dev", name, "netns", str(os.getpid()), "name", link)
