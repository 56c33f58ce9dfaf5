"""Image files that a client sends: one tarball, or form data of metadata and root file system.

They are looked into while the request lasts: a corrupt image is its answer, 400, where LXD's is an operation
that fails later, or an image that cannot be used.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl

from cluster.errors import AlreadyExists, Invalid
from lxdpy.host.images import Received, Upload
from lxdpy.resources.images.actions import retained
from lxdpy.resources.images.commands import AddImage, HoldImage
from lxdpy.resources.images.model import Alias, Image
from lxdpy.resources.profiles.model import PROFILES
from lxdpy.resources.projects.model import home
from lxdpy.resources.wire import only_set
from lxdpy.rest.route import AnyCall

Through = Callable[[str, AsyncIterator[bytes]], AsyncIterator[bytes]]

PIECE = 1 << 20  # bytes of a part read at once


async def receive(call: AnyCall, until_known: AsyncExitStack) -> tuple[Received, str]:
    """The uploaded files, looked into and kept, and what they are called. They stay at least as long as the
    stack lasts, and then if the cluster knows the image. Raises CorruptImage, Exhausted.
    """
    headers = call.request.headers
    expected = headers.get("X-LXD-fingerprint", "")
    check_profiles(call, asked_profiles(call))
    async with call.daemon.images.upload() as upload:
        if call.request.content_type != "multipart/form-data":
            await upload.add(call.pieces())
            filename = headers.get("X-LXD-filename", "")
        else:
            filename = await add_parts(upload, await call.request.multipart())
        await until_known.enter_async_context(retained(call.daemon, upload.fingerprint))
        return await upload.finish(expected), filename


async def add_parts(upload: Upload, parts: Any, through: Through | None = None) -> str:
    """An image of two files; what the second is called. `through` sees the bytes of each pass.

    Raises Invalid.
    """
    wanted = ["metadata", "rootfs"]
    filename = ""
    while (part := await parts.next()) is not None:
        name = getattr(part, "name", None)
        if not wanted or name != wanted[0]:
            raise Invalid(
                f"Invalid multipart image: unexpected part {name!r}; metadata comes first, then rootfs",
                key=str(name),
            )
        wanted.pop(0)
        filename = getattr(part, "filename", None) or ""
        await upload.add(through(str(name), pieces(part)) if through else pieces(part))
    if wanted:
        raise Invalid(f"Invalid multipart image: part missing: {wanted[0]}", key=wanted[0])
    return filename


async def pieces(part: Any) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(PIECE):
        yield piece


def described(call: AnyCall, received: Received, filename: str) -> Image:
    """The row of an uploaded image: what its metadata says, and over it what the request's headers say."""
    metadata, files, headers = received.metadata, received.files, call.request.headers
    properties = dict(metadata.properties)
    properties.update(parse_qsl(headers.get("X-LXD-properties", "")))
    return Image(
        project=home(call.state, call.project, "images"),
        fingerprint=files.fingerprint,
        filename=filename,
        size=files.size,
        architecture=metadata.architecture,
        public=headers.get("X-LXD-public", "").lower() in ("1", "true"),
        properties=only_set(properties),
        profiles=asked_profiles(call) or ("default",),
        created_at=float(metadata.creation_date),
        uploaded_at=time.time(),
        expires_at=float(metadata.expiry_date),
        split=files.rootfs is not None,
        members=(call.daemon.member_id,),
    )


def asked_profiles(call: AnyCall) -> tuple[str, ...]:
    """Those for instances of the image, as the client wishes."""
    given = parse_qsl(call.request.headers.get("X-LXD-profiles", ""))
    return tuple(value for key, value in given if key == "profile")


def asked_aliases(call: AnyCall, project: str) -> tuple[Alias, ...]:
    """Names of the image; without a target yet."""
    given = parse_qsl(call.request.headers.get("X-LXD-aliases", ""))
    return tuple(Alias(project, value, "") for key, value in given if key == "alias")


def check_profiles(call: AnyCall, names: Iterable[str]) -> None:
    """Raises Invalid for the first that is not there."""
    own = home(call.state, call.project, "profiles")
    for name in names:
        if call.state.find(PROFILES, f"{own}/{name}") is None:
            raise Invalid(f"Profile '{name}' doesn't exist", key="profiles")


async def keep(call: AnyCall, row: Image) -> None:
    """Record the image; if it is known already, this member has its files now all the same."""
    try:
        await call.store.propose(AddImage(row))
    except AlreadyExists:
        await call.store.propose(HoldImage(row.key, call.daemon.member_id))
        raise
