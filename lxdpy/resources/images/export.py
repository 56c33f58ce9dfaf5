"""/1.0/images/<fingerprint>/export, and the same files for other members."""

from aiohttp import web

from cluster.errors import NotFound, Unavailable
from lxdpy.resources.announce import announce
from lxdpy.resources.images.actions import retained
from lxdpy.resources.images.form import MULTIPART, Parts, filename_of, length_of, parts_of, pieces_of
from lxdpy.resources.images.push import ImageExportPost, push, token
from lxdpy.resources.images.remote import refresh
from lxdpy.resources.images.shown import found
from lxdpy.resources.images.source import check_server
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.wire import url
from lxdpy.rest.replies import asynchronous, file
from lxdpy.rest.route import AnyCall, Call, Routes

routes = Routes("/1.0/images/{fingerprint}")
internal = Routes("/internal/1.0/images")


def holder(call: AnyCall) -> str | None:
    """This member if it has the files, else one that lives and has them. Raises Unavailable."""
    row = found(call)
    if call.daemon.images.has(row.fingerprint):
        return None
    for member in row.members:
        if call.daemon.beat.online(member) and member != call.daemon.member_id:
            return member
    raise Unavailable("No member that has the image's files can be reached", fingerprint=row.fingerprint)


@routes.on("GET", "/export", entitlement="can_view", untrusted=True, owner=holder)
async def export_image(call: Call[None]) -> web.StreamResponse:
    row = found(call)
    files = call.daemon.images.files(row.fingerprint)
    announce(call.daemon, "image-retrieved", url("images", row.fingerprint, project=row.project), row.project)
    if files.rootfs is None:
        return file(files.metadata, filename=filename_of(files))
    async with retained(call.daemon, row.fingerprint):
        return await multipart(call.request, parts_of(files))


async def multipart(request: web.BaseRequest, parts: Parts) -> web.StreamResponse:
    """Files as form data, streamed; the length is known beforehand, so that a cut is noticed."""
    reply = web.StreamResponse(headers={"Content-Type": MULTIPART})
    reply.content_length = length_of(parts)
    await reply.prepare(request)
    for piece in pieces_of(parts):
        await reply.write(piece)
    await reply.write_eof()
    return reply


@internal.on("GET", "/{fingerprint}/{part}", entitlement="can_view", internal=True)
async def send_part(call: Call[None]) -> web.StreamResponse:
    """One file of an image, for a member that needs it."""
    files = call.daemon.images.files(call.path("fingerprint"))
    wanted = {"metadata": files.metadata, "rootfs": files.rootfs}.get(call.path("part"))
    if wanted is None:
        raise NotFound(f"The image has no {call.path('part')} file")
    return file(wanted)


@routes.on("POST", "/secret", entitlement="can_view")
async def create_secret(call: Call[None]) -> web.Response:
    """By which a stranger, as another server is, may have the image: in an hour's time, and by any member."""
    row = found(call)
    made = await token(call, "image", row.project, row.fingerprint)
    path = url("images", row.fingerprint, project=row.project)
    announce(call.daemon, "image-secret-created", path, row.project)
    return made


@routes.on("POST", "/export", body=ImageExportPost, entitlement="can_edit", owner=holder)
async def push_image(call: Call[ImageExportPost]) -> web.Response:
    """Bring it to another server, which has given a secret for that."""
    row, body = found(call), call.body
    check_server(body.target, "target")

    async def run(operation: Operation) -> None:
        await push(call.daemon, row, body, operation)
        announce(
            call.daemon, "image-retrieved", url("images", row.fingerprint, project=row.project), row.project
        )

    return asynchronous(call.daemon.operations.start("Downloading image", {}, run, project=call.project))


@routes.on("POST", "/refresh", entitlement="can_edit")
async def refresh_image(call: Call[None]) -> web.Response:
    """Get what the server that it came from has under that name by now."""
    row = found(call)

    async def run(operation: Operation) -> None:
        operation.update(refreshed=await refresh(call.daemon, row, operation))

    resources = {"images": [url("images", row.fingerprint, project=row.project)]}
    started = call.daemon.operations.start("Refreshing image", resources, run, project=call.project)
    return asynchronous(started)
