"""lxdpy gpu explain: where an instance would go, and why no member or GPU else."""

from typing import Any
from urllib.parse import quote

import click

from lxdpy.cli.output import as_json, as_yaml, table
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client

HEADERS = ("MEMBER", "PCI", "MODEL", "STATE", "WHY NOT", "UUID")


@click.command()
@click.argument("instance", required=False)
@click.option("--count", "-n", type=click.IntRange(1, 64), help="How many GPUs (default 1).")
@click.option("--match", help="Conditions, as `vendor=nvidia memory>=40GiB`.")
@click.option("--shared", is_flag=True, help="Beside others.")
@click.option("--memory", help="To reserve on each shared GPU.")
@click.option("--policy", type=click.Choice(("spread", "pack", "spare-gpus")))
@click.option("--target", default="", help="A member, or @group.")
@click.option("--project", default="default")
@click.option("--format", "-f", "style", type=click.Choice(("table", "json", "yaml")), default="table")
@asks
async def explain(
    client: Client, /, instance: str | None, target: str, project: str, style: str, **wish: Any
) -> None:
    """Say where an instance would go, and why no other member or GPU.

    INSTANCE is one that there is: what it would get if it were made anew. Without it, one is thought up that
    has the default profile.
    """
    body: dict[str, Any] = {"source": {"type": "none"}, "config": config_of(**wish)}
    if instance:
        row = await client.ask("GET", f"/1.0/instances/{instance}", project=project)
        kept = {
            key: value for key, value in row["expanded_config"].items() if not key.startswith("volatile.")
        }
        devices = dict(row["expanded_devices"])
        if "limits.gpu" in kept | body["config"]:
            devices.pop("gpu", None)  # what limits.gpu stands for
        body |= {"config": kept | body["config"], "devices": devices, "profiles": []}
    elif "limits.gpu" not in body["config"]:
        body["config"]["limits.gpu"] = "1"
    path = f"/1.0/instances?dry-run=1&target={quote(target)}"
    found = await client.ask("POST", path, body, project=project)
    if style == "table":
        as_table(found)
    else:
        (as_json if style == "json" else as_yaml)(found)


def config_of(
    count: int | None, match: str | None, shared: bool, memory: str | None, policy: str | None
) -> dict[str, str]:
    wish = {
        "limits.gpu": str(count) if count else None,
        "gpu.match": match,
        "gpu.sharing": "shared" if shared else None,
        "gpu.memory": memory,
        "gpu.policy": policy,
    }
    return {key: value for key, value in wish.items() if value}


def as_table(found: dict[str, Any]) -> None:
    if found["why_not"]:
        click.echo(f"Nowhere: {found['why_not']}")
    else:
        click.echo(f"On {found['member']} (policy {found['policy']})")
    chosen = {uuid for uuids in found["gpus"].values() for uuid in uuids}
    table(HEADERS, [row for member in found["members"] for row in rows(member, chosen)])


def rows(member: dict[str, Any], chosen: set[str]) -> list[tuple[str, ...]]:
    """One for the member, and one for each of its GPUs."""
    shown: list[tuple[str, ...]] = [(member["name"], "", "", "", member["why_not"], "")]
    for gpu in member["gpus"]:
        why = "\n".join(reasons(gpu["devices"]))
        said = "CHOSEN" if gpu["uuid"] in chosen else gpu["state"].upper()
        shown.append(("", gpu["pci_address"], gpu["model"], said, why, gpu["uuid"]))
    return shown


def reasons(devices: dict[str, str]) -> list[str]:
    """Of one device as they are, of several with their names."""
    return [why if len(devices) == 1 else f"{name}: {why}" for name, why in sorted(devices.items()) if why]
