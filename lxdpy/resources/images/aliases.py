"""/1.0/images/aliases: names for images. They may hold slashes, percent-encoded in the path or not."""

from typing import Any

import msgspec
from aiohttp import web

from cluster.errors import Invalid, NotFound
from cluster.state.etag import etag_of
from lxdpy.resources.images.commands import CreateAlias, DeleteAlias, RenameAlias, UpdateAlias
from lxdpy.resources.images.find import by_fingerprint
from lxdpy.resources.images.model import ALIASES, IMAGES, Alias
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import url
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/images/aliases")


class AliasesPost(msgspec.Struct):
    name: str = ""
    target: str = ""
    description: str = ""
    type: str = ""


class AliasPut(msgspec.Struct):
    target: str | None = None
    description: str | None = None


class AliasPost(msgspec.Struct):
    name: str = ""


@routes.on("GET", entitlement="can_view")
async def list_aliases(call: Call[None]) -> web.Response:
    own = home(call.state, call.project, "images")
    rows = [row for _, row in sorted(call.state.rows(ALIASES).items()) if row.project == own]
    if call.recursive:
        return sync([wire(row) for row in rows])
    return sync([url("images/aliases", row.name, project=own) for row in rows])


@routes.on("POST", body=AliasesPost, entitlement="can_create_image_aliases")
async def create_alias(call: Call[AliasesPost]) -> web.Response:
    body = call.body
    if not body.name or not body.target:
        raise Invalid("name and target are required", key="name" if not body.name else "target")
    own = home(call.state, call.project, "images")
    target = by_fingerprint(call.state, own, body.target).fingerprint
    await call.store.propose(CreateAlias(Alias(own, body.name, target, body.description)))
    return sync(location=url("images/aliases", body.name, project=own))


@routes.on("GET", "/{name...}", entitlement="can_view", untrusted=True)
async def show_alias(call: Call[None]) -> web.Response:
    row = found(call)
    return sync(wire(row), etag=etag_of(row))


@routes.on("PUT", "/{name...}", body=AliasPut, entitlement="can_edit")
async def update_alias(call: Call[AliasPut]) -> web.Response:
    row = found(call)
    if not call.body.target:
        raise Invalid("The target field is required", key="target")
    return await update(call, row, call.body.target, call.body.description or "")


@routes.on("PATCH", "/{name...}", body=AliasPut, entitlement="can_edit")
async def patch_alias(call: Call[AliasPut]) -> web.Response:
    row, body = found(call), call.body
    description = row.description if body.description is None else body.description
    return await update(call, row, body.target or row.target, description)


async def update(call: AnyCall, row: Alias, target: str, description: str) -> web.Response:
    image = by_fingerprint(call.state, row.project, target)
    await call.store.propose(UpdateAlias(row.key, description, image.fingerprint, call.etag))
    return sync()


@routes.on("POST", "/{name...}", body=AliasPost, entitlement="can_edit")
async def rename_alias(call: Call[AliasPost]) -> web.Response:
    row = found(call)
    if not call.body.name:
        raise Invalid("No name provided", key="name")
    await call.store.propose(RenameAlias(row.key, call.body.name))
    return sync(location=url("images/aliases", call.body.name, project=row.project))


@routes.on("DELETE", "/{name...}", entitlement="can_delete")
async def delete_alias(call: Call[None]) -> web.Response:
    await call.store.propose(DeleteAlias(found(call).key))
    return sync()


def found(call: AnyCall) -> Alias:
    """Strangers see aliases of public images only."""
    own = home(call.state, call.project, "images")
    row = call.state.find(ALIASES, f"{own}/{call.path('name')}")
    if row is None:
        raise NotFound("Image alias not found", alias=call.path("name"))
    if not call.identity.sees(call.project):
        image = call.state.find(IMAGES, f"{own}/{row.target}")
        if image is None or not image.public:
            raise NotFound("Image alias not found", alias=row.name)
    return row


def wire(row: Alias) -> dict[str, Any]:
    return {"description": row.description, "target": row.target, "name": row.name, "type": row.type}
