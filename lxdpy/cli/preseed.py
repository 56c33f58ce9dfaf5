"""LXD's preseed: what a server shall have, as YAML; and bringing a server there.

Scalars in YAML are taken as they are written (`ipv4.nat: true`, `user.version: 1.10`): config values are
strings. What exists is added to, nothing is taken away. If a step fails, those before it are undone.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec
import yaml

from cluster.errors import Conflict, Error, Invalid, NotFound
from cluster.membership.tokens import parse
from lxdpy.client.client import Client
from lxdpy.host.undo import Undo
from lxdpy.resources.cluster.model import ClusterPut

Config = dict[str, str]
Json = dict[str, Any]

LISTEN = ("core.https_address", "cluster.https_address")  # settings that a joining server keeps
NULL = "tag:yaml.org,2002:null"


class Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One row to be there. Unknown fields are refused: a slip of the pen would be lost without a word."""

    name: str
    description: str = ""
    config: Config | None = None


class Pool(Entry, kw_only=True):
    driver: str


class Network(Entry, kw_only=True):
    type: str = ""
    project: str = "default"


class Profile(Entry, kw_only=True):
    devices: dict[str, Config] | None = None


class Cluster(ClusterPut, kw_only=True, forbid_unknown_fields=True):
    cluster_certificate_path: str = ""


class Preseed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    config: Config | None = None
    networks: list[Network] | None = None
    storage_pools: list[Pool] | None = None
    profiles: list[Profile] | None = None
    projects: list[Entry] | None = None
    cluster: Cluster | None = None


class AsWritten(yaml.SafeLoader):
    """Nothing but null is anything else than text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag == NULL]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read(text: str) -> Preseed:
    """Raises Invalid, naming the place."""
    try:
        written = AsWritten(text).get_single_data()
        return msgspec.convert(written or {}, Preseed, strict=False)
    except yaml.YAMLError as error:
        what, mark = getattr(error, "problem", error), getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise Invalid(f"Preseed: not YAML{where}: {what}") from None
    except msgspec.ValidationError as error:
        raise Invalid(f"Preseed: {error}") from None


async def apply(client: Client, wanted: Preseed) -> None:
    """Raises what the server says; then all is as it was."""
    joining = wanted.cluster is not None and (wanted.cluster.cluster_token or wanted.cluster.cluster_address)
    if joining:
        check_joining(wanted)
    async with Undo() as undo:
        await configure(client, wanted.config or {}, undo)
        for pool in wanted.storage_pools or ():
            await ensure_pool(client, pool, undo)
        for project in wanted.projects or ():
            await ensure(client, "/1.0/projects", project, undo)
        for network in wanted.networks or ():
            await ensure(client, "/1.0/networks", network, undo, network.project)
        for profile in wanted.profiles or ():
            await ensure(client, "/1.0/profiles", profile, undo)
        if wanted.cluster is not None and wanted.cluster.enabled:
            await put_cluster(client, wanted.cluster)


def check_joining(wanted: Preseed) -> None:
    """Raises Invalid for what joining would lose."""
    sections = ("storage_pools", "networks", "profiles", "projects")
    given = [name for name in sections if getattr(wanted, name)]
    given += [key for key in wanted.config or {} if key not in LISTEN]
    if given:
        raise Invalid(f"Preseed: a server that joins takes over the cluster's settings: leave out {given[0]}")


async def configure(client: Client, config: Config, undo: Undo) -> None:
    """Set the server's config keys; others stay."""
    if not config:
        return
    now = (await client.ask("GET", "/1.0"))["config"]
    # A password that is set reads as true: it cannot be put back.
    before = {key: now.get(key, "") for key in config if now.get(key) is not True}
    undo.push(take_back, client, "PATCH", "/1.0", {"config": before})
    await client.ask("PATCH", "/1.0", {"config": config})


async def ensure_pool(client: Client, pool: Pool, undo: Undo) -> None:
    there = await known(client, f"/1.0/storage-pools/{quote(pool.name, safe='')}")
    if there is not None and there["driver"] != pool.driver:
        raise Conflict(f'Storage pool "{pool.name}" is there with driver "{there["driver"]}"')
    await ensure(client, "/1.0/storage-pools", pool, undo)


async def ensure(client: Client, collection: str, row: Entry, undo: Undo, project: str | None = None) -> None:
    """Create the row, or add to the one that is there."""
    path = f"{collection}/{quote(row.name, safe='')}"
    wanted: Json = {k: v for k, v in msgspec.to_builtins(row).items() if v is not None and k != "project"}
    there = await known(client, path, project=project)
    if there is None or there.get("managed") is False:  # an interface of that name: the server refuses it
        undo.push(take_back, client, "DELETE", path, project=project)
        await client.operation("POST", collection, wanted, project=project)
        return
    before = {key: there[key] for key in ("description", "config", "devices") if key in there}
    after = merged(before, wanted)
    if after != before:
        undo.push(take_back, client, "PUT", path, before, project=project)
        await client.operation("PUT", path, after, project=project)


def merged(before: Json, wanted: Mapping[str, Any]) -> Json:
    """What is there with what is wanted on top: key by key, devices option by option.

    "auto" was answered when the row was made: asking again would change the subnet under its instances.
    """
    after, config = dict(before), dict(before["config"])
    config |= {k: v for k, v in wanted.get("config", {}).items() if v != "auto" or not config.get(k)}
    after["description"] = wanted.get("description") or before.get("description", "")
    after["config"] = config
    if "devices" in before:
        devices = dict(before["devices"])
        for name, options in wanted.get("devices", {}).items():
            devices[name] = {**devices.get(name, {}), **options}
        after["devices"] = devices
    return after


async def put_cluster(client: Client, wanted: Cluster) -> None:
    """Enable clustering, or join. A server that is clustered under that name already is left as it is."""
    now = await client.ask("GET", "/1.0/cluster")
    body: Json = {key: value for key, value in msgspec.to_builtins(wanted).items() if value}
    if path := body.pop("cluster_certificate_path", ""):
        body["cluster_certificate"] = await asyncio.to_thread(Path(path).read_text)
    if wanted.cluster_token and not wanted.server_name:
        body["server_name"] = parse(wanted.cluster_token).server_name
    if now["enabled"] and now["server_name"] == body.get("server_name"):
        return
    await client.operation("PUT", "/1.0/cluster", body)


async def known(client: Client, path: str, project: str | None = None) -> Any:
    """What is there; None for nothing."""
    try:
        return await client.ask("GET", path, project=project)
    except NotFound:
        return None


async def take_back(
    client: Client, method: str, path: str, body: object = None, project: str | None = None
) -> None:
    try:
        await client.operation(method, path, body, project=project)
    except NotFound:
        pass  # the step that failed had not made it
    except Error as failure:
        click.echo(f"Could not be undone: {method} {path}: {failure.message}", err=True)
