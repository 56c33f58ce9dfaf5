"""/1.0/images: list, upload, show, change, delete."""

import time
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web

from cluster import failpoints
from cluster.errors import Forbidden, Invalid, Unsupported
from lxdpy.resources.images import publish, push, remote
from lxdpy.resources.images.commands import AddImage, DeleteImage, UpdateImage, image_etag
from lxdpy.resources.images.find import find_image
from lxdpy.resources.images.model import IMAGES, Image, ImagesPost
from lxdpy.resources.images.shown import by_target, found, wire
from lxdpy.resources.images.source import asked_of
from lxdpy.resources.images.upload import asked_aliases, check_profiles, described, keep, receive
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import only_set, seconds_of, url
from lxdpy.rest.filter import parse
from lxdpy.rest.replies import asynchronous, sync
from lxdpy.rest.route import MAX_BODY, AnyCall, Call, Routes

routes = Routes("/1.0/images")

FORM = "application/x-www-form-urlencoded"  # what curl calls all it sends


class ImagePut(msgspec.Struct):
    public: bool | None = None
    auto_update: bool | None = None
    properties: dict[str, str] | None = None
    profiles: list[str] | None = None
    expires_at: str | None = None


@routes.on("GET", entitlement="can_view", untrusted=True)
async def list_images(call: Call[None]) -> web.Response:
    own = home(call.state, call.project, "images")
    rows = [row for _, row in sorted(call.state.rows(IMAGES).items()) if row.project == own]
    rows = [row for row in rows if row.public or call.identity.sees(call.project)]
    if not call.recursive and not call.filter:
        return sync([url("images", row.fingerprint, project=own) for row in rows])
    names = by_target(call.state, own)
    matches = parse(call.filter)
    shown = [wire(row, names.get(row.fingerprint, [])) for row in rows]
    shown = [one for one in shown if matches(one)]
    if not call.recursive:
        return sync([url("images", one["fingerprint"], project=own) for one in shown])
    return sync(shown)


async def has_json(call: AnyCall) -> bool:
    """Whether no image is uploaded. What does not say what it is, as of `curl -d`, is looked at if small."""
    if call.request.headers.get("Content-Type", FORM) != FORM:
        return call.request.content_type == "application/json"
    small = (call.request.content_length or MAX_BODY) < MAX_BODY
    return small and (await call.read()).lstrip().startswith(b"{")


@routes.on("POST", takes=ImagesPost, entitlement="can_create_images", untrusted=True)
async def add_image(call: Call[None]) -> web.StreamResponse:
    await push.admit(call)
    if await has_json(call):
        if not call.identity.trusted:
            raise Forbidden("not authorized")
        body = await call.json(ImagesPost)
        if body.source.type in publish.SOURCES:
            return await publish_image(call, body)
        if body.source.type == "image" and body.source.mode in ("", "pull"):
            return copy_image(call, body)
        if body.source.mode == "push":
            own = home(call.state, call.project, "images")
            return await push.token(call, "upload", own, body.source.fingerprint)
        raise Unsupported(
            f'Images from source type "{body.source.type}" are not supported yet: upload the files',
            key="source.type",
        )
    async with AsyncExitStack() as received:
        row = described(call, *await receive(call, received))
        until_known = received.pop_all()
    aliases = asked_aliases(call, row.project)
    secret = call.request.headers.get("X-LXD-secret")

    async def run(operation: Operation) -> None:
        operation.update(fingerprint=row.fingerprint, size=str(row.size))
        async with until_known:
            await failpoints.reach("image.received")
            await keep(call, row)
            await remote.name_it(call.daemon, row, aliases)

    metadata = {"secret": secret} if secret else {}  # by which a stranger may wait
    operations = call.daemon.operations
    started = operations.start("Downloading image", {}, run, project=call.project, metadata=metadata)
    return asynchronous(started)


async def publish_image(call: Call[None], body: ImagesPost) -> web.StreamResponse:
    """By the member that has the instance."""
    project = body.source.project or call.project
    if not call.identity.sees(project):
        raise Forbidden("not authorized")
    row, snapshot = publish.find(call.state, project, body.source)
    if row.location != call.daemon.member_id:
        return await call.forward(row.location)
    check_profiles(call, body.profiles or [])
    wish = publish.wish_of(call.state, call.project, body)
    publish.check(call.daemon, row, snapshot)

    async def run(operation: Operation) -> None:
        await publish.publish(call.daemon, row, snapshot, wish, operation)

    return asynchronous(call.daemon.operations.start("Downloading image", {}, run, project=call.project))


def copy_image(call: Call[None], body: ImagesPost) -> web.Response:
    """From another server; where none is named, from another project of this one."""
    check_profiles(call, body.profiles or [])
    draft, aliases = publish.draft_of(call.state, call.project, body)
    draft = msgspec.structs.replace(draft, properties=only_set(body.properties))
    source = body.source
    asked = asked_of(source) if source.server else None
    if asked is None:
        if source.project and not call.identity.sees(source.project):
            raise Forbidden("not authorized")
        known = find_image(call.state, source.project or call.project, source.fingerprint, source.alias)

    async def run(operation: Operation) -> None:
        if asked is not None:
            row = await remote.get(call.daemon, asked, draft, operation)
        else:
            row = msgspec.structs.replace(
                known,
                project=draft.project,
                public=draft.public,
                profiles=draft.profiles,
                uploaded_at=time.time(),
            )
            await call.store.propose(AddImage(row))
        await remote.name_it(call.daemon, row, aliases)
        operation.update(fingerprint=row.fingerprint, size=str(row.size))

    operations = call.daemon.operations
    started = operations.start(
        "Downloading image", {}, run, project=call.project, may_cancel=asked is not None
    )
    return asynchronous(started)


@routes.on("GET", "/{fingerprint}", entitlement="can_view", untrusted=True)
async def show_image(call: Call[None]) -> web.Response:
    row = found(call)
    names = by_target(call.state, row.project).get(row.fingerprint, [])
    return sync(wire(row, names), etag=image_etag(row))


@routes.on("PUT", "/{fingerprint}", body=ImagePut, entitlement="can_edit")
async def update_image(call: Call[ImagePut]) -> web.Response:
    """What is not sent is as in a new image; but it expires when it did, as in LXD."""
    row = found(call)
    return await update(call, row, Image(row.project, row.fingerprint, expires_at=row.expires_at))


@routes.on("PATCH", "/{fingerprint}", body=ImagePut, entitlement="can_edit")
async def patch_image(call: Call[ImagePut]) -> web.Response:
    """What is not sent stays; properties are merged."""
    row = found(call)
    if call.body.properties is not None:
        call.body.properties = {**row.properties, **call.body.properties}
    return await update(call, row, row)


async def update(call: Call[ImagePut], row: Image, otherwise: Image) -> web.Response:
    """Change `row`; what the body does not say is as in `otherwise`."""
    body = call.body
    try:
        expires = otherwise.expires_at if body.expires_at is None else seconds_of(body.expires_at)
    except ValueError:
        raise Invalid(f"Not a date: {body.expires_at}", key="expires_at") from None
    check_profiles(call, body.profiles or [])
    command = UpdateImage(
        key=row.key,
        public=otherwise.public if body.public is None else body.public,
        auto_update=otherwise.auto_update if body.auto_update is None else body.auto_update,
        properties=only_set(otherwise.properties if body.properties is None else body.properties),
        profiles=otherwise.profiles if body.profiles is None else tuple(body.profiles),
        expires_at=expires,
        etag=call.etag,
    )
    await call.store.propose(command)
    return sync()


@routes.on("DELETE", "/{fingerprint}", entitlement="can_delete")
async def delete_image(call: Call[None]) -> web.Response:
    row = found(call)

    async def run(_: Operation) -> None:
        await call.store.propose(DeleteImage(row.key))

    resources = {"images": [url("images", row.fingerprint, project=row.project)]}
    started = call.daemon.operations.start("Deleting image", resources, run, project=call.project)
    return asynchronous(started)
