"""lxdpy gpu queue: who waits for GPUs, in order."""

from typing import Any

import click

from lxdpy.cli.output import as_json, as_yaml, table
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client

HEADERS = ("NO", "PRIORITY", "INSTANCES", "ACTION", "GPUS", "SINCE", "UNTIL", "WHY", "OPERATION")


@click.command()
@click.option("--project", help="Only of this one; all that you may see without it.")
@click.option("--cancel", metavar="OPERATION", help="Take one out of the queue instead.")
@click.option("--format", "-f", "style", type=click.Choice(("table", "json", "yaml")), default="table")
@asks
async def queue(client: Client, project: str | None, cancel: str | None, style: str) -> None:
    """List the requests that wait for GPUs, or cancel one."""
    if cancel:
        await client.ask("DELETE", f"/1.0/operations/{cancel}")
        click.echo(f"Request {cancel} waits no more")
        return
    path = "/1.0/gpu-queue" if project else "/1.0/gpu-queue?all-projects=true"
    rows = await client.ask("GET", path, recursion=1, project=project or "")
    if style == "table":
        table(HEADERS, [shown(row) for row in rows])
    else:
        (as_json if style == "json" else as_yaml)(rows)


def shown(row: dict[str, Any]) -> tuple[str, ...]:
    names = [name if row["project"] == "default" else f"{row['project']}/{name}" for name in row["instances"]]
    why = row["reason"] + (f" ({len(row['kept'])} GPUs are kept for it)" if row["kept"] else "")
    return (
        str(row["position"]),
        str(row["priority"]),
        "\n".join(names),
        row["action"].upper(),
        str(row["gpus"]),
        row["asked_at"],
        row["until"],
        why,
        row["id"],
    )
