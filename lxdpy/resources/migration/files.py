"""The files of instances and snapshots as streams, wherever they are."""

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

from cluster.errors import NotFound, Unavailable, Unsupported
from cluster.membership.model import name_of
from lxdpy.host.storage.driver import Volume
from lxdpy.host.storage.stream import pack, unpack
from lxdpy.resources.images.actions import ensure_here, retained
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.instances.owner import built
from lxdpy.resources.snapshots import actions
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.snapshots.readers import used
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.rest.forward import Alive
from lxdpy.rest.patience import while_true

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

PATIENCE = 3600.0  # seconds; of a running instance a `dir` pool makes a whole copy before the first byte
HIDDEN = "copy "  # how the names of snapshots for copies begin: no user's can


class Part(NamedTuple):
    """One of the volumes that are fetched: what it is at the source, and what it becomes here."""

    snapshot: str  # id; "" for the instance itself
    target: Volume


async def fetch(daemon: "Daemon", source: Instance, parts: Sequence[Part], pool: str) -> None:
    """Make copies of an instance, or of snapshots of it, in `pool` of this member; oldest first.

    Each takes the place of what was there, when all of it has come. Raises Unavailable when the source's
    owner is lost on the way, Exhausted when the pool is full.
    """
    if source.location == daemon.member_id and source.pool == pool:
        for part in parts:  # of all before the first is made: with an instance its snapshots go
            await daemon.pools.driver(pool).delete(part.target)
        for part in parts:
            await _copy(daemon, source, part, pool)
        return
    try:
        await _receive(daemon, source, parts, pool)
    except Unsupported as missing:
        log.info("%s comes as plain files: %s", source.key, missing.message)
        for part in parts:
            await _unpack(daemon, source, part, pool)


async def _copy(daemon: "Daemon", source: Instance, part: Part, pool: str) -> None:
    driver = daemon.pools.driver(pool)
    async with still(daemon, source, part.snapshot) as origin:
        await driver.copy(origin, part.target)


async def _receive(daemon: "Daemon", source: Instance, parts: Sequence[Part], pool: str) -> None:
    """In the form of the driver, if it is the same at both ends. Raises Unsupported."""
    kinds = [daemon.state.get(POOLS, name).driver for name in (source.pool, pool)]
    if kinds[0] != kinds[1]:
        raise Unsupported(f"from {kinds[0]} to {kinds[1]}")
    await _prepare(daemon, source, pool)
    parent = ""
    async with daemon.pools.driver(pool).receiving() as receive:
        for part in parts:
            form = Form(own=True, parent=parent)
            async with aclosing(stream(daemon, source, part.snapshot, form)) as chunks:
                await receive(part.target, chunks, nothing)
            parent = part.snapshot


async def _prepare(daemon: "Daemon", source: Instance, pool: str) -> None:
    """Have the image that it may stand on, if that can be had."""
    image = source.config.get("volatile.base_image", "")
    if not any(row.fingerprint == image for row in daemon.state.rows(IMAGES).values()):
        return
    with contextlib.suppress(NotFound, Unavailable):
        async with retained(daemon, image):
            await ensure_here(daemon, source.project, image)
            driver = daemon.pools.driver(pool)
            await driver.ensure_image(image, lambda into: daemon.images.unpack(image, into))


async def nothing(_: Path) -> None:
    """All is as it should be already."""


async def _unpack(daemon: "Daemon", source: Instance, part: Part, pool: str) -> None:
    async def fill(folder: Path) -> None:
        async with aclosing(stream(daemon, source, part.snapshot, Form())) as chunks:
            await unpack(chunks, folder)

    await daemon.pools.driver(pool).fill(part.target, fill)


class Form(NamedTuple):
    """How files travel: as a tarball that fits any pool, or in the form of the source's driver."""

    own: bool = False
    parent: str = ""  # id of the snapshot that came before


async def stream(
    daemon: "Daemon", source: Instance, snapshot: str, form: Form
) -> AsyncGenerator[bytes, None]:
    """An instance, or a snapshot of it (by id), from the member that has it."""
    if source.location == daemon.member_id:
        chunks = packed(daemon, source, snapshot, form)
    else:
        asked = {"project": source.project, "snapshot": snapshot, "own": form.own, "parent": form.parent}
        path = f"/internal/1.0/instances/{source.name}/files?{urlencode(asked)}"
        chunks = downloaded(daemon, source.location, path)
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk


async def downloaded(daemon: "Daemon", member: str, path: str) -> AsyncGenerator[bytes, None]:
    """As it comes; given up soon after the member has been lost. Raises Unavailable."""
    alive = Alive(daemon.beat.online, member)
    chunks = aiter(daemon.forwarder.download(member, path, PATIENCE))
    while True:
        try:
            async with while_true(alive):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Unavailable(f"Member {name_of(daemon.state, member)} was lost on the way") from None
        if chunk is None:
            return
        yield chunk


async def packed(
    daemon: "Daemon", source: Instance, snapshot: str, form: Form
) -> AsyncGenerator[bytes, None]:
    """Of this member's instance."""
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(still(daemon, source, snapshot))
        if form.own:
            parent = Volume(source.volume, snapshot=form.parent) if form.parent else None
            stack.enter_context(used(daemon, form.parent))
            chunks = daemon.pools.driver(source.pool).send(origin, parent, {})
        else:
            chunks = pack(await stack.enter_async_context(reading(daemon, source.pool, origin)))
        await stack.enter_async_context(aclosing(chunks))
        async for chunk in chunks:
            yield chunk


@asynccontextmanager
async def still(daemon: "Daemon", source: Instance, snapshot: str) -> AsyncIterator[Volume]:
    """The volume of a snapshot, or one that is as the instance is now; it does not change meanwhile.

    A stopped instance cannot be started meanwhile, unless the pool makes snapshots in no time: then the copy
    is made of one, as it is of a running instance, and everything goes on.
    """
    if snapshot:
        with used(daemon, snapshot):
            yield Volume(source.volume, snapshot=snapshot)
        return
    if source.move is not None:
        yield Volume(source.volume)  # nobody touches it
        return
    if at_rest(daemon, source):
        async with daemon.lock(f"instance {source.key}"):
            if at_rest(daemon, built(daemon, source.key)):
                yield Volume(source.volume)
                return
    async with moment(daemon, source) as taken:
        yield taken


def at_rest(daemon: "Daemon", row: Instance) -> bool:
    """Whether its files are best copied as they are, while it cannot be started."""
    copies_at_once = daemon.pools.driver(row.pool).abilities.copy_on_write
    return not copies_at_once and daemon.runtime.state(row.volume).status == "Stopped"


@asynccontextmanager
async def moment(daemon: "Daemon", source: Instance) -> AsyncIterator[Volume]:
    """A snapshot that nobody sees, for as long as the block lasts; a crash leaves it to `tidy`."""
    hidden = hidden_snapshot(source)
    with used(daemon, hidden.id):
        await actions.create(daemon, source.key, hidden, hidden=True)
        try:
            yield actions.volume(source, hidden)
        finally:
            await actions.discard(daemon, source.key, hidden)


def hidden_snapshot(row: Instance) -> Snapshot:
    """That nobody sees: one that stays "Creating"."""
    id = uuid4().hex
    return Snapshot(row.project, row.name, f"{HIDDEN}{id}", id, created_at=time.time())


@asynccontextmanager
async def reading(daemon: "Daemon", pool: str, volume: Volume) -> AsyncIterator[Path]:
    """The volume's folder, its files at `rootfs`; for any number of readers at one time."""
    driver, name = daemon.pools.driver(pool), f"{pool}/{volume.name}/{volume.snapshot}"
    async with daemon.lock(f"reading {name}"):
        await driver.mount(volume, None)
        daemon.in_use[name] += 1
    try:
        yield driver.path(volume)
    finally:
        async with daemon.lock(f"reading {name}"):
            daemon.in_use[name] -= 1
            if not daemon.in_use[name]:
                del daemon.in_use[name]
                if volume.snapshot or not _stays_mounted(daemon, volume):
                    await driver.unmount(volume)


def _stays_mounted(daemon: "Daemon", volume: Volume) -> bool:
    """Its container runs, or somebody sees to its files, who unmounts it in the end."""
    return daemon.files.holds(volume.name) or daemon.runtime.state(volume.name).status != "Stopped"
