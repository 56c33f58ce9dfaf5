"""lxdpy gpu top: what the cluster's GPUs do just now, and for whom."""

import asyncio
from typing import Any

import click

from lxdpy.cli.output import size, table
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client

HEADERS = ("MEMBER", "MODEL", "BUSY", "MEMORY", "TEMP", "POWER", "PROCESSES", "HELD BY")
UNKNOWN = "-"


@click.command()
@click.option("--once", is_flag=True, help="Look once, instead of again and again.")
@click.option("--every", type=click.FloatRange(min=0.5), default=5.0, help="Seconds between looks (5).")
@asks
async def top(client: Client, /, once: bool, every: float) -> None:
    """Show what all GPUs do just now: how busy they are, and who holds them."""
    while True:
        rows = await client.ask("GET", "/1.0/gpus", recursion=2)
        if not once:
            click.clear()
        table(HEADERS, [line(row) for row in rows])
        if once:
            return
        await asyncio.sleep(every)


def line(row: dict[str, Any]) -> tuple[str, ...]:
    """A card whose member does not tell has dashes."""
    told = row["figures"] or {}

    def shown(name: str, form: str, factor: float = 1) -> str:
        return form.format(told[name] * factor) if name in told else UNKNOWN

    memory = told.get("memory_used")
    used = UNKNOWN if memory is None else size(memory) if memory else "0B"
    holders = [holder for one in (row, *row["mig"]) for holder in one["holders"]]
    return (
        row["member"],
        row["model"],
        shown("busy", "{:.0f} %", 100),
        f"{used} of {size(row['memory'])}",
        shown("temperature", "{:.0f} °C"),
        shown("power", "{:.0f} W"),
        shown("processes", "{}"),
        "\n".join(name(holder) for holder in holders),
    )


def name(holder: dict[str, Any]) -> str:
    if not holder["instance"]:
        return "(another project)"
    project, instance = holder["project"], holder["instance"]
    return str(instance) if project == "default" else f"{project}/{instance}"
