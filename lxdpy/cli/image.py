"""lxdpy image …"""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from cluster.errors import NotFound
from lxdpy.cli.output import note, size
from lxdpy.cli.verbs import asks
from lxdpy.client.client import Client
from lxdpy.host.build import SUITES, build_busybox, build_debian
from lxdpy.host.image_archive import pack, unpack

ALIASES = "/1.0/images/aliases"
KINDS = ("busybox", *(f"debian/{release}" for release in SUITES))
PARTS = ("metadata.yaml", "rootfs")  # in this order: who reads the first need not read the second


@click.group()
def image() -> None:
    """Make images without an image server."""


@image.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--alias", help="Name of the image; by default the kind.")
@click.option("--compression", help="Pack it anew by gzip, xz, zstd, … or none; with options, if any.")
@asks
async def build(client: Client, kind: str, alias: str | None, compression: str | None) -> None:
    """Make a ready image of what this host has: busybox in seconds, a Debian with systemd in a minute.

    An alias that exists is turned to the new image; the old one stays.
    """
    await client.ask("GET", "/1.0")  # rather now than after a minute's work
    with tempfile.TemporaryDirectory(prefix="lxdpy-image-") as scratch:
        note(f"Building {kind}")
        file = await made(kind, Path(scratch), compression)
        fingerprint = await asyncio.to_thread(sha256, file)
        await publish(client, file, fingerprint, alias or kind)


async def made(kind: str, folder: Path, compression: str | None) -> Path:
    """The image's one file, below `folder`."""
    target = folder / "image.tar"
    if kind == "busybox":
        await build_busybox(target)
    else:
        await build_debian(target, kind.removeprefix("debian/"))
    if compression is None:
        return target
    tree, packed = folder / "tree", folder / "packed.tar"
    tree.mkdir()
    await unpack(target, tree)
    await pack(tree, packed, compression, names=PARTS)
    return packed


async def publish(client: Client, file: Path, fingerprint: str, alias: str) -> None:
    """Upload the image if the cluster does not have it, and name it. Repeating it changes nothing."""
    named = await known(client, f"{ALIASES}/{quote(alias, safe='')}")
    if named is not None and named["target"] == fingerprint:
        click.echo(f"{alias} is there already: {fingerprint[:12]}")
        return
    if await known(client, f"/1.0/images/{fingerprint}") is None:
        with open(file, "rb") as content:  # noqa: ASYNC230  there is nothing else to do meanwhile
            note(f"Uploading {size(os.fstat(content.fileno()).st_size)}")
            await client.upload("POST", "/1.0/images", content, headers={"X-LXD-fingerprint": fingerprint})
    if named is None:
        await client.ask("POST", ALIASES, {"name": alias, "target": fingerprint})
    else:
        body = {"target": fingerprint, "description": named["description"]}
        await client.ask("PUT", f"{ALIASES}/{quote(alias, safe='')}", body)
    click.echo(f"{alias}: {fingerprint[:12]}")


async def known(client: Client, path: str) -> Any:
    """What is there; None for nothing."""
    try:
        return await client.ask("GET", path)
    except NotFound:
        return None


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
