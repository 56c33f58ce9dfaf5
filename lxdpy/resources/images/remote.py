"""Images of other servers: got from there, and asked for again later."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec

from cluster.errors import AlreadyExists, Error, NotFound, Unavailable
from cluster.membership.model import MEMBERS
from lxdpy.host.images import Received, Upload
from lxdpy.resources.announce import announce
from lxdpy.resources.images import remote_lxd, remote_streams
from lxdpy.resources.images.actions import bounded, from_peers, retained, told
from lxdpy.resources.images.cache import asked_again, chosen, expired, kept
from lxdpy.resources.images.commands import AddImage, CreateAlias, HoldImage, KeepImage, ReplaceImage
from lxdpy.resources.images.model import IMAGES, Alias, Asked, Image, Remote
from lxdpy.resources.images.products import Found
from lxdpy.resources.images.upload import Through
from lxdpy.resources.server.proxies import proxy_for
from lxdpy.resources.wire import seconds_of, url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon
    from lxdpy.resources.operations.operation import Operation

log = logging.getLogger(__name__)
replace = msgspec.structs.replace


class Server(Protocol):
    async def find(self, architecture: str) -> Found:
        """The image that is asked for. Raises NotFound, Invalid, Unavailable, Error."""
        ...

    async def download(self, found: Found, upload: Upload, through: Through) -> None:
        """Add its files; their bytes go through `through`."""
        ...


def opened(daemon: "Daemon", asked: Asked) -> AbstractAsyncContextManager[Server]:
    proxy = proxy_for(daemon.state, asked.server)
    if asked.protocol == "simplestreams":
        return remote_streams.opened(asked, proxy)
    return remote_lxd.opened(asked, proxy)


async def get(
    daemon: "Daemon", asked: Asked, draft: Image, operation: "Operation | None", architecture: str = ""
) -> Image:
    """Have it here, and know of it. `draft` is what the image is to be beside what the server says of it;
    whoever asks for a cached one is content with what is kept up to date.

    Raises NotFound, Invalid, Unavailable, CorruptImage, Exhausted.
    """
    async with daemon.lock(f"image {asked.name} of {asked.server}"):  # many may ask for it at once
        there = kept(daemon.state, draft.project, asked, architecture) if draft.cached else None
        if there is not None:
            return there
        async with opened(daemon, asked) as server:
            found = await server.find(architecture or _meant(daemon, draft.project, asked))
            row = replace(
                _described(draft, found),
                auto_update=draft.auto_update and (bool(found.alias) or not draft.cached),
                properties=draft.properties or found.properties,
                expires_at=draft.expires_at or _expiry(found),
                remote=Remote(asked.server, found.alias, asked.certificate, asked.protocol),
            )
            async with _held(daemon, found.fingerprint):
                row = await _have(daemon, server, asked, found, row, operation)
                return await _record(daemon, row)


@asynccontextmanager
async def _held(daemon: "Daemon", fingerprint: str) -> AsyncIterator[None]:
    """The image's lock. If the cluster does not come to know of the image, its files go again."""
    async with retained(daemon, fingerprint), daemon.lock(f"image {fingerprint}"):
        yield


def _meant(daemon: "Daemon", project: str, asked: Asked) -> str:
    """The architecture that a name stands for; servers with LXD's API have one image of a name."""
    if asked.protocol == "lxd":
        return ""
    default = chosen(daemon.state, project, "images.default_architecture")
    return default or daemon.state.get(MEMBERS, daemon.member_id).architecture or "x86_64"


def _described(draft: Image, found: Found) -> Image:
    return replace(
        draft,
        fingerprint=found.fingerprint,
        filename=found.filename,
        properties=found.properties,
        expires_at=_expiry(found),
    )


def _expiry(found: Found) -> float:
    try:
        return seconds_of(found.expires)
    except ValueError:
        return 0.0


async def _record(daemon: "Daemon", row: Image) -> Image:
    """The row as it is then; it may have been there already."""
    try:
        await daemon.store.propose(AddImage(row))
    except AlreadyExists:
        await daemon.store.propose(HoldImage(row.key, daemon.member_id))
        if not row.cached:
            await daemon.store.propose(KeepImage(row.key, row.public, row.auto_update))
    return daemon.state.find(IMAGES, row.key) or row


async def _have(
    daemon: "Daemon", server: Server, asked: Asked, found: Found, row: Image, operation: "Operation | None"
) -> Image:
    """The row with what only the files tell; they are downloaded unless they are here, or at a peer."""
    if of := await _known(daemon, found.fingerprint, operation):
        return replace(
            row, size=of.size, architecture=of.architecture, created_at=of.created_at, split=of.split,
            uploaded_at=time.time(), members=(daemon.member_id,),
        )  # fmt: skip
    received = await _download(daemon, server, asked, found, operation)
    return replace(
        row,
        size=received.files.size,
        architecture=received.metadata.architecture,
        created_at=float(received.metadata.creation_date),
        uploaded_at=time.time(),
        split=received.files.rootfs is not None,
        members=(daemon.member_id,),
    )


async def _known(daemon: "Daemon", fingerprint: str, operation: "Operation | None") -> Image | None:
    """One that the cluster has, in whatever project, once its files are here."""
    for row in list(daemon.state.rows(IMAGES).values()):
        if row.fingerprint == fingerprint:
            try:
                if not daemon.images.has(fingerprint):
                    await from_peers(daemon, row, operation)
            except Unavailable as failure:
                log.info("image %s is got anew: %s", fingerprint[:12], failure.message)
            else:
                return row
    return None


async def _download(
    daemon: "Daemon", server: Server, asked: Asked, found: Found, operation: "Operation | None"
) -> Received:
    sizes, most = {file.part: file.size for file in found.files}, sum(file.size for file in found.files)
    where = urlsplit(asked.server).netloc

    def through(part: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = sizes.get(part, most)
        chunks = bounded(chunks, size, where)
        return chunks if operation is None else told(chunks, size, part, operation)

    async with daemon.images.upload() as upload:
        await server.download(found, upload, through)
        return await upload.finish(found.fingerprint)


async def name_it(daemon: "Daemon", row: Image, aliases: tuple[Alias, ...]) -> None:
    for alias in aliases:
        await daemon.store.propose(CreateAlias(replace(alias, target=row.fingerprint)))


async def refresh(daemon: "Daemon", row: Image, operation: "Operation | None" = None) -> bool:
    """Whether there was a newer one, which has taken its place. Raises NotFound for one without a source."""
    if row.remote is None:
        text = (
            f'Failed to update image "{row.fingerprint}" in project "{row.project}": Image source not found'
        )
        raise NotFound(text)
    asked = asked_again(row)
    if asked is None:
        return False
    async with opened(daemon, asked) as server:
        found = await server.find(row.architecture)
        if found.fingerprint == row.fingerprint:
            return False
        new = _described(replace(row, last_used_at=row.last_used_at if row.cached else 0.0), found)
        async with _held(daemon, found.fingerprint):
            new = await _have(daemon, server, asked, found, new, operation)
            await daemon.store.propose(ReplaceImage(row.key, new))
    announce(daemon, "image-refreshed", url("images", new.fingerprint, project=new.project), new.project)
    log.info("image %s was refreshed: it is %s now", row.fingerprint[:12], found.fingerprint[:12])
    return True


async def refresh_all(daemon: "Daemon") -> None:
    """Those that are to be kept new. A server that cannot be reached is asked another time."""
    for row in list(daemon.state.rows(IMAGES).values()):
        never = chosen(daemon.state, row.project, "images.auto_update_interval") == "0"
        if row.auto_update and row.remote is not None and not never:
            try:
                await refresh(daemon, row)
            except Error as failure:
                log.warning("image %s was not refreshed: %s", row.fingerprint[:12], failure.message)


async def expire(daemon: "Daemon") -> None:
    """Drop what was got for instances, and has not been used for long."""
    for command in expired(daemon.state, time.time()):
        try:
            await daemon.store.propose(command)
        except Error as later:
            log.info("cached image stays: %s", later.message)
        else:
            log.info("cached image %s went, as nobody has used it", command.key[-64:][:12])
