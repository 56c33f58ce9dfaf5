"""lxdpy recover"""

from typing import Any

import click
import msgspec

from cluster.errors import Invalid
from lxdpy.cli.output import note, table
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client
from lxdpy.resources.recovery.model import PoolAsked, RecoverPost, Validated

HEADERS = ("POOL", "PROJECT", "TYPE", "NAME", "SNAPSHOTS")
OWN = ("name", "driver")


@click.command()
@click.option(
    "--pool", "given", multiple=True, metavar="name=NAME,driver=DRIVER[,KEY=VALUE…]",
    help="A pool that the server does not know, with its keys, as source=/dev/sdb. May be repeated.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask: what --pool says, and recover if nothing is missing.")
@asks
async def recover(client: Client, /, given: tuple[str, ...], yes: bool) -> None:
    """Register instances and volumes anew that are in this host's pools, when the database is lost.

    On a server that has been set up anew, with its projects, networks and profiles. Pools that it knows are
    looked through, and those that are named. Nothing is registered while anything is missing that one of the
    instances needs. What is recovered is stopped.
    """
    pools = [pool_of(words) for words in given]
    if not yes:
        await show_known(client)
        pools += asked_pools()
    body = RecoverPost(pools)
    while True:
        found = await sent(client, "validate", body)
        if not found.unknown_volumes and not found.dependency_errors:
            note("Nothing was found that is not registered.")
            return
        table(HEADERS, [msgspec.structs.astuple(row) for row in found.unknown_volumes])
        if not found.dependency_errors:
            break
        missing = "\n".join(f" - {each}" for each in found.dependency_errors)
        if yes:
            raise Invalid(f"This is missing, or in the way:\n{missing}")
        note(f"This is missing, or in the way:\n{missing}")
        click.confirm("Is it there now?", abort=True)
    if not yes:
        click.confirm("Register these?", abort=True)
    done = await sent(client, "import", body)
    note(f"Recovered: {len(done.unknown_volumes)}")


async def sent(client: Client, step: str, body: RecoverPost) -> Validated:
    answer = await client.ask("POST", f"/internal/recover/{step}", msgspec.to_builtins(body))
    return msgspec.convert(answer, Validated)


def pool_of(words: str) -> PoolAsked:
    """Raises Invalid."""
    keys: dict[str, str] = {}
    for word in words.split(","):
        key, mark, value = word.partition("=")
        if not mark or not key:
            raise Invalid(f'--pool takes KEY=VALUE, with commas in between, not "{word}"')
        keys[key] = value
    if not keys.get("name") or not keys.get("driver"):
        raise Invalid(f"--pool needs name= and driver=: {words}")
    config = {key: value for key, value in keys.items() if key not in OWN}
    return PoolAsked(keys["name"], keys["driver"], config=config)


async def show_known(client: Client) -> None:
    known: list[dict[str, Any]] = await client.ask("GET", "/1.0/storage-pools", recursion=1)
    names = ", ".join(f"{row['name']} ({row['driver']})" for row in known) or "none"
    note(f"Pools that the server knows, which are looked through: {names}")


def asked_pools() -> list[PoolAsked]:
    pools = []
    while click.confirm("Recover another pool?", default=False, err=True):
        name = click.prompt("Name", err=True)
        driver = click.prompt("Driver", type=click.Choice(("dir", "btrfs")), err=True)
        source = click.prompt("Source (path; empty if the daemon made one)", "", show_default=False, err=True)
        config = {"source": source} if source else {}
        while more := click.prompt("Another key=value (empty: none)", "", show_default=False, err=True):
            key, mark, value = more.partition("=")
            if mark:
                config[key] = value
        pools.append(PoolAsked(name, driver, config=config))
    return pools
