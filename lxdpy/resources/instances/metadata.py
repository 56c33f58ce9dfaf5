"""/1.0/instances/<name>/metadata and its templates: files beside the root file system, on the owner."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from aiohttp import web

from cluster.errors import Invalid
from cluster.state.etag import check_etag, etag_of
from lxdpy.host import instance_files
from lxdpy.host.image_metadata import Template
from lxdpy.host.instance_files import LARGEST_TEMPLATE, InstanceMetadata
from lxdpy.resources.instances.announce import announce
from lxdpy.resources.instances.handlers import found, owner
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.owner import built, volume_of
from lxdpy.resources.instances.rename import moved
from lxdpy.rest.replies import raw, sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/instances")

T = TypeVar("T")


class MetadataPut(msgspec.Struct):
    architecture: str = ""
    creation_date: int = 0
    expiry_date: int = 0
    properties: dict[str, str] | None = None
    templates: dict[str, Template | None] | None = None

    def kept(self) -> InstanceMetadata:
        templates = {path: one for path, one in (self.templates or {}).items() if one is not None}
        return InstanceMetadata(
            self.architecture, self.creation_date, self.expiry_date, self.properties or {}, templates
        )


class MetadataPatch(msgspec.Struct):
    """What is not sent stays; properties and templates are merged."""

    architecture: str | None = None
    creation_date: int | None = None
    expiry_date: int | None = None
    properties: dict[str, str] | None = None
    templates: dict[str, Template | None] | None = None

    def onto(self, old: InstanceMetadata) -> InstanceMetadata:
        sent = {
            name: value
            for name in ("architecture", "creation_date", "expiry_date")
            if (value := getattr(self, name)) is not None
        }
        templates = {path: one for path, one in (self.templates or {}).items() if one is not None}
        merged = {
            "properties": old.properties | (self.properties or {}), "templates": old.templates | templates
        }  # fmt: skip
        return msgspec.structs.replace(old, **sent, **merged)


async def on_disk(call: AnyCall, work: Callable[[Path], T]) -> tuple[Instance, T]:
    """Do `work` with the instance's folder while nobody moves, renames or deletes it."""
    daemon, key = call.daemon, found(call).key
    built(daemon, key)
    async with daemon.lock(f"instance {key}"):
        row = await moved(daemon, built(daemon, key))
        folder = daemon.pools.driver(row.pool).path(volume_of(row))
        return row, await asyncio.to_thread(work, folder)


def shown(metadata: InstanceMetadata) -> object:
    """As LXD writes it: empty mappings are null."""
    templates = {
        path: {
            "when": list(one.when),
            "create_only": one.create_only,
            "template": one.template,
            "properties": one.properties,
        }
        for path, one in metadata.templates.items()
    }
    return {
        "architecture": metadata.architecture,
        "creation_date": metadata.creation_date,
        "expiry_date": metadata.expiry_date,
        "properties": metadata.properties,
        "templates": templates,
    }


def version(metadata: InstanceMetadata) -> str:
    return etag_of(shown(metadata))


@routes.on("GET", "/{name}/metadata", entitlement="can_view", owner=owner)
async def show_metadata(call: Call[None]) -> web.Response:
    row, metadata = await on_disk(call, instance_files.read_metadata)
    announce(call.daemon, row, "instance-metadata-retrieved", "metadata")
    return sync(shown(metadata), etag=version(metadata))


@routes.on("PUT", "/{name}/metadata", body=MetadataPut, entitlement="can_edit", owner=owner)
async def replace_metadata(call: Call[MetadataPut]) -> web.Response:
    new = call.body.kept()
    return await change(call, lambda _: new)


@routes.on("PATCH", "/{name}/metadata", body=MetadataPatch, entitlement="can_edit", owner=owner)
async def patch_metadata(call: Call[MetadataPatch]) -> web.Response:
    return await change(call, call.body.onto)


async def change(call: AnyCall, edit: Callable[[InstanceMetadata], InstanceMetadata]) -> web.Response:
    def work(folder: Path) -> None:
        old = instance_files.read_metadata(folder)
        check_etag(call.etag, version(old))
        instance_files.write_metadata(folder, edit(old))

    row, _ = await on_disk(call, work)
    announce(call.daemon, row, "instance-metadata-updated", "metadata")
    return sync()


@routes.on("GET", "/{name}/metadata/templates", entitlement="can_view", owner=owner)
async def show_templates(call: Call[None]) -> web.Response:
    """Names of all, or with `?path=` what is in one."""
    name = call.query("path")
    if not name:
        return sync((await on_disk(call, instance_files.template_names))[1])
    row, text = await on_disk(call, lambda folder: instance_files.read_template(folder, name))
    announce(call.daemon, row, "instance-metadata-template-retrieved", "metadata", "templates", path=name)
    return raw(text, headers={"Content-Disposition": f"inline;filename={_printable(name)}"})


@routes.on("POST", "/{name}/metadata/templates", entitlement="can_edit", owner=owner)
async def write_template(call: Call[None]) -> web.Response:
    name, text = name_in(call), await call.read(LARGEST_TEMPLATE)
    row, _ = await on_disk(call, lambda folder: instance_files.write_template(folder, name, text))
    announce(call.daemon, row, "instance-metadata-template-created", "metadata", "templates", path=name)
    return sync()


@routes.on("DELETE", "/{name}/metadata/templates", entitlement="can_edit", owner=owner)
async def delete_template(call: Call[None]) -> web.Response:
    name = name_in(call)
    row, _ = await on_disk(call, lambda folder: instance_files.delete_template(folder, name))
    announce(call.daemon, row, "instance-metadata-template-deleted", "metadata", "templates", path=name)
    return sync()


def name_in(call: AnyCall) -> str:
    name = call.query("path")
    if not name:
        raise Invalid("missing path argument", key="path")
    return name


def _printable(name: str) -> str:
    return "".join(character for character in name if character.isprintable())
