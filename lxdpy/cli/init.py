"""lxdpy init"""

import sys
from typing import Any

import click
import msgspec

from cluster.errors import Invalid
from lxdpy.cli.address import PORT, networks
from lxdpy.cli.output import as_yaml
from lxdpy.cli.preseed import Network, Pool, Preseed, Profile, apply, read
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client

POOL = "default"
BRIDGE = "lxdpybr0"
Json = dict[str, Any]


class Options(msgspec.Struct, frozen=True):
    auto: bool
    preseed: bool
    dump: bool
    network_address: str | None
    network_port: int
    storage_backend: str
    trust_password: str | None


@click.command()
@click.option("--auto", is_flag=True, help="A pool, a bridge with DHCP, and a profile that uses them.")
@click.option("--preseed", is_flag=True, help="What is in the YAML on stdin, in LXD's format.")
@click.option("--dump", is_flag=True, help="Print such YAML of what is there.")
@click.option("--network-address", help="With --auto: listen for clients and other members there.")
@click.option("--network-port", type=click.IntRange(1, 65535), default=PORT, show_default=True)
@click.option("--storage-backend", type=click.Choice(("dir", "btrfs")), default="dir", show_default=True)
@click.option("--trust-password", help="With --auto: a password by which clients may gain trust.")
@asks
async def init(client: Client, /, **given: Any) -> None:
    """Furnish the server: storage, network, default profile. What is there already stays."""
    options = Options(**given)
    if options.auto + options.preseed + options.dump != 1:
        raise click.UsageError("Give one of --auto, --preseed and --dump.")
    if not options.auto and (options.network_address or options.trust_password):
        raise click.UsageError("--network-address and --trust-password go with --auto.")
    if options.dump:
        as_yaml(await dumped(client))
    elif options.preseed:
        await apply(client, read(sys.stdin.read()))
    else:
        config = settings(options.network_address, options.network_port, options.trust_password)
        await apply(client, await furniture(client, config, options.storage_backend))


def settings(address: str | None, port: int, password: str | None) -> dict[str, str]:
    config = {}
    if address is not None:
        host = f"[{address}]" if ":" in address and not address.startswith("[") else address
        config["core.https_address"] = f"{host}:{port}"
    if password is not None:
        if not password:
            raise Invalid("The trust password is empty")
        config["core.trust_password"] = password
    return config


async def furniture(client: Client, config: dict[str, str], backend: str) -> Preseed:
    """A pool and a network, unless there are some, and what the default profile lacks of both."""
    pools = [row["name"] for row in await client.ask("GET", "/1.0/storage-pools", recursion=1)]
    bridges = [row["name"] for row in await networks(client)]
    pool = POOL if POOL in pools or not pools else pools[0]
    bridge = BRIDGE if BRIDGE in bridges or not bridges else bridges[0]
    profile = (await client.ask("GET", "/1.0/profiles/default"))["devices"]
    devices: dict[str, dict[str, str]] = {}
    if not any(device.get("path") == "/" for device in profile.values()):
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    if not any(device.get("type") == "nic" for device in profile.values()):
        devices["eth0"] = {"type": "nic", "name": "eth0", "network": bridge}
    nat = {"ipv4.address": "auto", "ipv4.nat": "true"}
    return Preseed(
        config=config,
        storage_pools=[] if pools else [Pool(name=pool, driver=backend)],
        networks=[] if bridges else [Network(name=bridge, type="bridge", config=nat)],
        profiles=[Profile(name="default", devices=devices)],
    )


async def dumped(client: Client) -> Json:
    """What `--preseed` would make the same of another server. Of pools and networks without volatile keys."""
    config = (await client.ask("GET", "/1.0"))["config"]
    return {
        "config": config,
        "networks": [
            entry(row, "name", "type", "description", "config") | {"project": "default"}
            for row in await networks(client)
        ],
        "storage_pools": [
            entry(row, "name", "driver", "description", "config")
            for row in await client.ask("GET", "/1.0/storage-pools", recursion=1)
        ],
        "profiles": [
            entry(row, "name", "description", "config", "devices")
            for row in await client.ask("GET", "/1.0/profiles", recursion=1)
        ],
        "projects": [
            entry(row, "name", "description", "config")
            for row in await client.ask("GET", "/1.0/projects", recursion=1)
        ],
    }


def entry(row: Json, *fields: str) -> Json:
    found = {field: row[field] for field in fields}
    found["config"] = {k: v for k, v in row["config"].items() if not k.startswith("volatile.")}
    return found
