"""lxdpy cluster …"""

import sys
from typing import Any
from urllib.parse import quote

import click
import msgspec

from cluster.errors import Invalid
from cluster.membership.model import ALONE
from cluster.membership.tokens import JoinToken, parse
from lxdpy.cli.address import own_address
from lxdpy.cli.output import note, table
from lxdpy.cli.verbs import Late, asks
from lxdpy.client.client import Client

ADDRESS = click.option("--address", help="Where the others reach this server: host or host:port.")
HEADERS = (
    "NAME", "URL", "ROLES", "ARCHITECTURE", "FAILURE DOMAIN", "DESCRIPTION", "STATE", "MESSAGE",
)  # fmt: skip


class Cluster(Late):
    late = {
        "recover": "lxdpy.cli.cluster_recover:recover",
        "rejoin": "lxdpy.cli.cluster_rejoin:rejoin",
        "show": "lxdpy.cli.cluster_edit:show",
        "list-database": "lxdpy.cli.cluster_edit:list_database",
        "export": "lxdpy.cli.cluster_export:export",
        "import": "lxdpy.cli.cluster_export:import_",
        "edit": "lxdpy.cli.cluster_edit:edit",
    }


@click.group(cls=Cluster)
def cluster() -> None:
    """Make a cluster of servers, and repair one whose daemons are stopped."""


@cluster.command()
@click.argument("name")
@ADDRESS
@asks
async def enable(client: Client, name: str, address: str | None) -> None:
    """Let others join this server, which becomes member NAME."""
    await put(client, name, {"server_address": await own_address(client, address)})
    click.echo("Clustering enabled")


@cluster.command()
@click.argument("name")
@asks
async def add(client: Client, name: str) -> None:
    """Print a token by which a server can join, once, as member NAME."""
    begun = await client.call("POST", "/1.0/cluster/members", {"server_name": name})
    made = begun.metadata["metadata"]
    facts = {**made, "server_name": made["serverName"]}
    if "expiresAt" in made:
        facts["expires_at"] = made["expiresAt"]
    token = msgspec.convert(facts, JoinToken)
    note(f"Member {name} joins by: lxdpy cluster join <token>")
    click.echo(token.printed())


@cluster.command()
@click.argument("token")
@click.option("--name", help="Name of this member; refused unless the token is for it.")
@ADDRESS
@asks
async def join(client: Client, token: str, name: str | None, address: str | None) -> None:
    """Make this server, which must be empty, a member of the cluster that made TOKEN ("-": from stdin).

    Name, certificate and addresses are in the token.
    """
    text = token if token.strip("-") else sys.stdin.read()
    name = name or parse(text).server_name
    own = await own_address(client, address)
    await put(client, name, {"cluster_token": text.strip(), "server_address": own})
    click.echo(f"Joined the cluster as {name}")


async def put(client: Client, name: str, body: dict[str, object]) -> None:
    await client.operation("PUT", "/1.0/cluster", {"server_name": name, "enabled": True, **body})


@cluster.command("list")
@asks
async def list_members(client: Client) -> None:
    """List the members and how they are."""
    if not (await client.ask("GET", "/1.0/cluster"))["enabled"]:
        raise Invalid("This server isn't part of a cluster")
    table(HEADERS, [shown(row) for row in await client.ask("GET", "/1.0/cluster/members", recursion=1)])


def shown(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["server_name"],
        row["url"],
        "\n".join(row["roles"]),
        row["architecture"],
        row["failure_domain"],
        row["description"],
        row["status"].upper(),
        row["message"],
    )


@cluster.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also when it is offline, or still has instances: they are lost.")
@asks
async def remove(client: Client, name: str, force: bool) -> None:
    """Take member NAME out of the cluster; it begins anew."""
    await client.operation("DELETE", f"/1.0/cluster/members/{name}", force=1 if force else None)
    click.echo(f"Member {name} removed")


@cluster.command("renew-certificate")
@click.argument("name", required=False)
@asks
async def renew_certificate(client: Client, name: str | None) -> None:
    """Give this member, or member NAME, another certificate of its own, by which the others know it.

    For the certificate that clients see: `lxc cluster update-certificate`.
    """
    if name is None:
        name = str((await client.ask("GET", "/1.0/cluster"))["server_name"] or ALONE)
    await client.operation("POST", f"/1.0/cluster/members/{quote(name, safe='')}/certificate", {})
    click.echo(f"Member {name} has another certificate")
