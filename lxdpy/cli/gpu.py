"""lxdpy gpu …"""

from typing import Any

import click

from cluster.errors import Invalid, NotFound
from lxdpy.cli.gpu_explain import explain
from lxdpy.cli.gpu_park import park, renew, unpark
from lxdpy.cli.gpu_queue import queue
from lxdpy.cli.gpu_top import top
from lxdpy.cli.output import as_json, as_yaml, size, table
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client

HEADERS = ("MEMBER", "MODEL", "MEMORY", "PCI", "STATE", "HEALTH", "HELD BY", "UUID")
FORMAT = click.option(
    "--format", "-f", "style", type=click.Choice(("table", "json", "yaml")), default="table"
)


@click.group()
def gpu() -> None:
    """See who holds the cluster's GPUs, and take GPUs out of use."""


@gpu.command("list")
@FORMAT
@asks
async def list_gpus(client: Client, style: str) -> None:
    """List the GPUs of all members."""
    rows = await client.ask("GET", "/1.0/gpus", recursion=1)
    if style == "table":
        table(HEADERS, [line for row in rows for line in (shown(row), *map(part_shown, row["mig"]))])
    else:
        (as_json if style == "json" else as_yaml)(rows)


def shown(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["member"],
        row["model"],
        size(row["memory"]),
        row["pci_address"],
        row["state"].upper(),
        row["health"].upper(),
        "\n".join(holder(one) for one in row["holders"]),
        row["uuid"],
    )


def part_shown(row: dict[str, Any]) -> tuple[str, ...]:
    """A MIG device, below its card."""
    held = "\n".join(holder(one) for one in row["holders"])
    name = f"  {row['profile']} (gi {row['gi']}, ci {row['ci']})"
    return ("", name, size(row["memory"]), "", row["state"].upper(), "", held, row["uuid"])


def holder(row: dict[str, Any]) -> str:
    """`c1`, `lab/c1` outside the default project, with what it has reserved of a shared one."""
    if not row["instance"]:
        return "(another project)"
    name = row["instance"] if row["project"] == "default" else f"{row['project']}/{row['instance']}"
    name = f"{name} ({size(row['memory'])})" if row["memory"] else name
    return f"{name} (degraded)" if row.get("degraded") else name


@gpu.command()
@click.argument("uuid")
@asks
async def show(client: Client, uuid: str) -> None:
    """Show one GPU; the beginning of UUID is enough."""
    as_yaml(await client.ask("GET", f"/1.0/gpus/{await whole(client, uuid)}"))


@gpu.command()
@click.argument("uuid")
@asks
async def drain(client: Client, uuid: str) -> None:
    """Grant the GPU to no further instance; those that hold it keep it."""
    await patch(client, uuid, "drain")


@gpu.command()
@click.argument("uuid")
@asks
async def enable(client: Client, uuid: str) -> None:
    """Grant the GPU again."""
    await patch(client, uuid, "enable")


USAGE = ("PROJECT", "INSTANCE", "HOLDS", "GPU HOURS", "SHARED", "MIG", "UNTIL")


@gpu.command()
@FORMAT
@asks
async def usage(client: Client, style: str) -> None:
    """Show for how long instances have held GPUs, those too that are gone."""
    found = await client.ask("GET", "/1.0/gpu-usage")
    if style != "table":
        (as_json if style == "json" else as_yaml)(found)
        return
    totals = [used(row["name"], "(all)", row, "") for row in found["projects"]]
    table(
        USAGE,
        totals + [used(row["project"], row["instance"], row, row["until"]) for row in found["instances"]],
    )


def used(project: str, instance: str, row: dict[str, Any], until: str) -> tuple[str, ...]:
    limit = f" of {row['limit']}" if row.get("limit", -1) >= 0 else ""
    hours = (f"{row[f'{way}_seconds'] / 3600:.2f}" for way in ("exclusive", "shared", "mig"))
    return (project, instance, f"{row['held']}{limit}", *hours, until)


async def patch(client: Client, uuid: str, state: str) -> None:
    found = await whole(client, uuid)
    await client.ask("PATCH", f"/1.0/gpus/{found}", {"state": state})
    click.echo(f"GPU {found} {'is drained' if state == 'drain' else 'can be granted'}")


async def whole(client: Client, beginning: str) -> str:
    """The uuid that begins so. Raises NotFound, or Invalid for several."""
    rows = await client.ask("GET", "/1.0/gpus", recursion=1)
    uuids = [one["uuid"] for row in rows for one in (row, *row["mig"])]
    found = [beginning] if beginning in uuids else [uuid for uuid in uuids if uuid.startswith(beginning)]
    if not found:
        raise NotFound(f"GPU not found: {beginning}")
    if len(found) > 1:
        raise Invalid(f"Several GPUs begin with {beginning}: {', '.join(sorted(found))}")
    return found[0]


gpu.add_command(explain)
for command in (park, unpark, renew, top, queue):
    gpu.add_command(command)
