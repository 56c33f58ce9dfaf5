"""lxdpy gpu park, unpark, renew: a running instance's GPUs, given back for a while."""

import click

from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client

PROJECT = click.option("--project", default="default")


@click.command()
@click.argument("instance")
@click.option("--force", "-f", is_flag=True, help="End the programs in it that use them.")
@PROJECT
@asks
async def park(client: Client, /, instance: str, force: bool, project: str) -> None:
    """Take INSTANCE's GPUs out of it, for others to have; it runs on."""
    await change(client, instance, project, "park", force=force)
    click.echo(f"{instance} has given its GPUs back")


@click.command()
@click.argument("instance")
@click.option("--wait", "-w", metavar="TIME", help="How long to wait in the queue, -1 for ever (gpu.wait).")
@PROJECT
@asks
async def unpark(client: Client, /, instance: str, wait: str | None, project: str) -> None:
    """Give INSTANCE GPUs again: those it had, if they are free, or others that it may have."""
    await change(client, instance, project, "unpark", **({} if wait is None else {"wait": wait}))
    click.echo(f"{instance} has its GPUs")


@click.command()
@click.argument("instance")
@PROJECT
@asks
async def renew(client: Client, /, instance: str, project: str) -> None:
    """Let the lease of INSTANCE's GPUs (gpu.lease) begin anew."""
    await change(client, instance, project, "renew")
    click.echo(f"The lease of {instance}'s GPUs begins anew")


async def change(client: Client, instance: str, project: str, action: str, **more: object) -> None:
    path = f"/1.0/instances/{instance}/gpu"
    await client.operation("POST", path, {"action": action, **more}, project=project)
