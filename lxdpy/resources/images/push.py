"""Images that are brought to another server, and those that another server brings."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from cluster.errors import Forbidden
from cluster.ids import operation_id
from cluster.membership.commands import CreateToken, RevokeToken
from cluster.membership.model import Token
from cluster.membership.tokens import hash_of, new_secret
from lxdpy.host.images import ImageFiles
from lxdpy.resources.cluster.tokens import Tokens
from lxdpy.resources.images.actions import ensure_here, retained, told
from lxdpy.resources.images.form import MULTIPART, content_of, filename_of, length_of, parts_of, pieces_of
from lxdpy.resources.images.model import Image, NewAlias
from lxdpy.resources.images.remote_lxd import connected
from lxdpy.resources.images.shown import token_of
from lxdpy.resources.projects.model import PROJECTS, home
from lxdpy.resources.server.proxies import proxy_for
from lxdpy.rest.replies import asynchronous
from lxdpy.rest.route import AnyCall

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon
    from lxdpy.resources.operations.operation import Operation

SECRET_FOR = 3600.0  # seconds; whoever asks for one uses it at once, for a transfer that began in time


class ImageExportPost(msgspec.Struct):
    """Where to bring it: a server that has given a secret for that."""

    target: str = ""
    certificate: str = ""
    secret: str = ""
    project: str = ""
    aliases: list[NewAlias] | None = None
    profiles: list[str] | None = None


async def token(
    call: AnyCall, kind: Literal["image", "upload"], project: str, fingerprint: str
) -> web.Response:
    """A secret, as an operation that tells it."""
    daemon, now, secret = call.daemon, time.time(), new_secret()
    made = Token(
        id=operation_id(daemon.member_id),
        kind=kind,
        name=fingerprint,
        secret_hash=hash_of(secret),
        created_at=now,
        expires_at=now + SECRET_FOR,
        projects=(project,),
    )
    await call.store.propose(CreateToken(made))
    daemon.membership.secrets[made.id] = secret
    return asynchronous(Tokens(daemon).view(made))


async def admit(call: AnyCall) -> None:
    """Let a stranger bring the image that its secret is for, once. Raises Forbidden."""
    found, headers = None, call.request.headers
    if (secret := headers.get("X-LXD-secret")) and call.state.find(PROJECTS, call.project) is not None:
        own, fingerprint = home(call.state, call.project, "images"), headers.get("X-LXD-fingerprint", "")
        found = token_of(call.state, "upload", own, fingerprint, secret)
    if found is not None:
        await call.store.propose(RevokeToken(found.id))
    elif not call.identity.trusted:
        raise Forbidden("not authorized")


async def push(daemon: "Daemon", row: Image, body: ImageExportPost, operation: "Operation") -> None:
    """Raises what the other server says, Unavailable if it cannot be reached."""
    async with retained(daemon, row.fingerprint):
        await ensure_here(daemon, row.project, row.fingerprint, operation)
        await _send(daemon, row, body, operation)


async def _send(daemon: "Daemon", row: Image, body: ImageExportPost, operation: "Operation") -> None:
    files = daemon.images.files(row.fingerprint)
    content, headers = _content(files)
    headers |= {
        "X-LXD-fingerprint": row.fingerprint,
        "X-LXD-secret": body.secret,
        "X-LXD-filename": row.filename or filename_of(files),
        "X-LXD-properties": urlencode(row.properties),
    }
    if body.aliases:
        headers["X-LXD-aliases"] = urlencode([("alias", alias.name) for alias in body.aliases])
    if body.profiles:
        headers["X-LXD-profiles"] = urlencode([("profile", name) for name in body.profiles])
    proxy = proxy_for(daemon.state, body.target)
    async with connected(body.target, body.certificate, proxy) as client:
        chunks = told(_walk(content), row.size, f"to {body.target}", operation)
        await client.upload("POST", "/1.0/images", chunks, headers=headers, project=body.project or None)


def _content(files: ImageFiles) -> tuple[Iterator[bytes], dict[str, str]]:
    if files.rootfs is None:
        return content_of(files.metadata), {"Content-Length": str(files.metadata.stat().st_size)}
    parts = parts_of(files)
    return pieces_of(parts), {"Content-Type": MULTIPART, "Content-Length": str(length_of(parts))}


async def _walk(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
