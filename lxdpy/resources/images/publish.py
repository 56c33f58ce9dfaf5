"""Images made of instances and of snapshots, by the member that has them."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml

from cluster.errors import AlreadyExists, Invalid
from cluster.state.txn import State
from lxdpy.host.backup_archive import END, entry, without_end
from lxdpy.host.image_metadata import parse_metadata
from lxdpy.host.images import Received
from lxdpy.host.storage.stream import pack
from lxdpy.resources.compression import IMAGES as COMPRESSION
from lxdpy.resources.compression import compression_of
from lxdpy.resources.images.actions import retained
from lxdpy.resources.images.commands import AddImage, CreateAlias
from lxdpy.resources.images.model import ALIASES, Alias, Image, ImageSource, ImagesPost
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.origin import find_source
from lxdpy.resources.instances.owner import built
from lxdpy.resources.migration.files import reading, still
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.projects.model import home
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.wire import only_set, seconds_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

replace = msgspec.structs.replace

SOURCES = ("instance", "container", "snapshot")  # types of sources that are instances
METADATA = "metadata.yaml"


class Wish(NamedTuple):
    """What the image is to be, beside its files."""

    draft: Image  # without what only the files tell
    properties: dict[str, str] | None  # None: those of the image that the instance was made of
    compression: str
    aliases: tuple[Alias, ...]  # without a target


def find(state: State, project: str, source: ImageSource) -> tuple[Instance, Snapshot | None]:
    """Raises NotFound; Conflict while it is not to be copied."""
    if not source.name:
        raise Invalid("No source provided", key="source.name")
    if source.type == "snapshot" and "/" not in source.name:
        raise Invalid(f'Not a snapshot: "{source.name}"', key="source.name", value=source.name)
    return find_source(state, project, source.name)


def wish_of(state: State, project: str, body: ImagesPost) -> Wish:
    """Raises Invalid, AlreadyExists for what cannot be."""
    draft, aliases = draft_of(state, project, body)
    properties = None if body.properties is None else only_set(body.properties)
    compression = compression_of(state, project, COMPRESSION, body.compression_algorithm)
    return Wish(draft, properties, compression, aliases)


def draft_of(state: State, project: str, body: ImagesPost) -> tuple[Image, tuple[Alias, ...]]:
    """As much of the image as the request says, and its names. Raises Invalid, AlreadyExists."""
    own = home(state, project, "images")
    try:
        expires = seconds_of(body.expires_at)
    except ValueError:
        raise Invalid(f"Not a date: {body.expires_at}", key="expires_at") from None
    draft = Image(
        project=own,
        fingerprint="",
        filename=body.filename,
        public=body.public,
        auto_update=body.auto_update,
        profiles=tuple(body.profiles or ("default",)),
        expires_at=expires,
    )
    aliases = tuple(Alias(own, new.name, "", new.description) for new in body.aliases or ())
    for alias in aliases:
        if state.find(ALIASES, alias.key) is not None:
            raise AlreadyExists(f"Alias already exists: {alias.name}", alias=alias.name)
    return draft, aliases


def check(daemon: "Daemon", row: Instance, snapshot: Snapshot | None) -> None:
    """Raises Invalid while it runs, as what is half written would be in the image."""
    built(daemon, row.key)
    if snapshot is None and daemon.runtime.state(row.volume).status != "Stopped":
        raise Invalid("Cannot export a running instance as an image", instance=row.name)


async def publish(
    daemon: "Daemon", row: Instance, snapshot: Snapshot | None, wish: Wish, operation: Operation
) -> None:
    """Raises AlreadyExists, Exhausted; then there is no image. The operation tells the fingerprint."""
    async with (
        daemon.images.upload() as upload,
        aclosing(_tarball(daemon, row, snapshot, wish.properties)) as chunks,
        aclosing(_told(chunks, operation)) as told,
    ):
        await upload.pack(told, wish.compression)
        async with retained(daemon, upload.fingerprint):
            received = await upload.finish()
            await _record(daemon, received, wish)
    operation.update(fingerprint=received.files.fingerprint, size=str(received.files.size))


async def _tarball(
    daemon: "Daemon", row: Instance, snapshot: Snapshot | None, properties: dict[str, str] | None
) -> AsyncGenerator[bytes, None]:
    of = snapshot or row
    async with (
        still(daemon, row, snapshot.id if snapshot else "") as volume,
        reading(daemon, row.pool, volume) as folder,
    ):
        text = await asyncio.to_thread(metadata, folder, of, properties)
        yield entry(METADATA, text, time.time())
        async with (
            aclosing(pack(folder, parts=("templates", "rootfs"))) as packed,
            aclosing(without_end(packed)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk
    yield END


def metadata(folder: Path, of: Instance | Snapshot, properties: dict[str, str] | None) -> bytes:
    """What the image says of itself: what the instance's own did, unless it says otherwise. Blocks."""
    tree: dict[str, Any] = {"architecture": of.architecture, "creation_date": int(time.time())}
    path = folder / METADATA
    if path.is_file() and not path.is_symlink():
        text = path.read_bytes()
        parse_metadata(text)
        tree |= yaml.safe_load(text)
    else:
        tree["properties"] = {"name": of.name, "architecture": of.architecture}
    if properties is not None:
        tree["properties"] = properties
    tree.pop("expiry_date", None)
    return yaml.safe_dump(tree, sort_keys=False).encode()


async def _told(chunks: AsyncGenerator[bytes, None], operation: Operation) -> AsyncGenerator[bytes, None]:
    """The same, with what was done as the operation's progress."""
    done, began = 0, time.monotonic()
    async for chunk in chunks:
        done += len(chunk)
        rate = done / (time.monotonic() - began + 0.001)
        said = f"Image pack: {done / 1e6:.2f}MB ({rate / 1e6:.2f}MB/s)"
        operation.progress(create_image_from_container_pack_progress=said)
        yield chunk


async def _record(daemon: "Daemon", received: Received, wish: Wish) -> None:
    files, said = received.files, received.metadata
    row = replace(
        wish.draft,
        fingerprint=files.fingerprint,
        size=files.size,
        architecture=said.architecture,
        properties=only_set(said.properties),
        created_at=float(said.creation_date),
        uploaded_at=time.time(),
        members=(daemon.member_id,),
    )
    await daemon.store.propose(AddImage(row))
    for alias in wish.aliases:
        await daemon.store.propose(CreateAlias(replace(alias, target=row.fingerprint)))
