"""What an owner does with its custom volumes: make, fill from another, change in size, remove."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import Conflict, Error, NotFound
from lxdpy.config.types import size
from lxdpy.host.storage import records
from lxdpy.host.storage.driver import Volume
from lxdpy.host.storage.stream import pack, unpack
from lxdpy.host.undo import Undo
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.projects.model import on
from lxdpy.resources.storage_volumes.commands import (
    CreateVolume,
    DropVolume,
    FinishVolume,
    ForgetVolume,
    UpdateVolume,
)
from lxdpy.resources.storage_volumes.disks import names_volume, volume_of_disk
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)


def on_disk(row: StorageVolume, snapshot: str = "") -> Volume:
    """The volume, or its snapshot of that id."""
    return Volume(row.id, "custom", snapshot, size(row.config["size"]) if row.config.get("size") else 0)


async def create(
    daemon: "Daemon", row: StorageVolume, fill: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Record it, make it, and say that it is there. Nothing is left if that fails.

    Empty, unless `fill` makes it and the snapshots that the row names.
    """
    async with Undo() as undo:
        undo.push(remove, daemon, row.id)
        await daemon.store.propose(CreateVolume(row))
        async with daemon.lock(f"storage volume {row.id}"):
            await (fill() if fill else daemon.pools.driver(row.pool).create(on_disk(row)))
            await daemon.store.propose(FinishVolume(row.id))


async def create_copy(
    daemon: "Daemon", row: StorageVolume, source: StorageVolume, snapshot: str = ""
) -> None:
    """Of `source` with those of its snapshots that the row names; or of its `snapshot` (id)."""

    async def fill() -> None:
        for one in row.snapshots:
            await copy(daemon, source, one.id, on_disk(row, one.id), row.pool)
        await copy(daemon, source, snapshot, on_disk(row), row.pool)

    await create(daemon, row, fill)


async def move(daemon: "Daemon", id: str, moved: Callable[[StorageVolume], StorageVolume]) -> None:
    """Make of it what `moved` says, with the snapshots that it has by its turn; none is taken meanwhile.

    It stays, and there is no other, if that fails. Raises NotFound, Invalid where it is used by then.
    """
    async with daemon.lock(f"storage volume {id}"), Undo() as undo:
        row = daemon.state.get(VOLUMES, id)
        new = moved(row)
        await create_copy(daemon, new, row)
        undo.push(remove, daemon, new.id)
        await daemon.store.propose(DropVolume(id))
    await settle(daemon, id)


async def copy(daemon: "Daemon", source: StorageVolume, snapshot: str, target: Volume, pool: str) -> None:
    """The files of one that may be on another member, as they are now, or as its snapshot (id) has them."""
    driver = daemon.pools.driver(pool)
    if (source.location, source.pool) == (daemon.member_id, pool):
        with reading(daemon, source, snapshot):
            await driver.copy(Volume(source.id, "custom", snapshot), target)
        return

    async def fill(folder: Path) -> None:
        async with aclosing(files(daemon, source, snapshot)) as chunks:
            await unpack(chunks, folder)

    await driver.fill(target, fill)


async def files(daemon: "Daemon", row: StorageVolume, snapshot: str = "") -> AsyncGenerator[bytes, None]:
    """The volume as a tarball, from the member that has it. Raises Unavailable when that is lost."""
    if row.location != daemon.member_id:
        path = f"/internal/1.0/storage-volumes/{row.id}?snapshot={snapshot}"
        async for chunk in daemon.forwarder.download(row.location, path):
            yield chunk
        return
    folder = daemon.pools.driver(row.pool).path(Volume(row.id, "custom", snapshot))
    with reading(daemon, row, snapshot):
        async with aclosing(pack(folder, whole=True)) as chunks:
            async for chunk in chunks:
                yield chunk


@contextmanager
def reading(daemon: "Daemon", row: StorageVolume, snapshot: str = "") -> Iterator[None]:
    """Within, the files of this member's volume, or of its snapshot (id), are there: who removes them, or
    puts others in their place, waits. Raises NotFound, or Conflict where somebody is at that already.
    """
    now = daemon.state.find(VOLUMES, row.id)
    of = next((one for one in now.snapshots if one.id == snapshot), None) if now and snapshot else now
    if now is None or of is None or not now.status == of.status == "Ready":
        raise NotFound("Storage pool volume not found", volume=row.name)
    if not snapshot and daemon.lock(files_of(row.id)).locked():
        raise Conflict(f"Storage volume is being restored: {row.name}", volume=row.name)
    with daemon.using(snapshot or row.id):
        yield


async def change(daemon: "Daemon", row: StorageVolume, description: str, config: Config, etag: str) -> None:
    """Raises Unsupported if the pool cannot limit it; then it stays as it was."""
    new = StorageVolume(row.id, row.pool, row.project, row.name, row.location, config=config)
    async with daemon.lock(f"storage volume {row.id}"), Undo() as undo:
        row = daemon.state.get(VOLUMES, row.id)  # another may have changed it meanwhile
        if on_disk(new).size != on_disk(row).size:
            driver = daemon.pools.driver(row.pool)
            undo.push(driver.resize, on_disk(row))
            await driver.resize(on_disk(new))
        await daemon.store.propose(UpdateVolume(row.id, description, config, etag))


async def remove(daemon: "Daemon", id: str) -> None:
    """From use, from disk, and then from the cluster. Idempotent. Raises Invalid while it is used."""
    try:
        await daemon.store.propose(DropVolume(id))
    except NotFound:
        return
    await settle(daemon, id)


async def settle(daemon: "Daemon", id: str) -> None:
    """Remove one of this member's that is to go, or that a crash kept from being made. Idempotent."""
    async with daemon.lock(f"storage volume {id}"):
        row = daemon.state.find(VOLUMES, id)
        if row is None or row.location != daemon.member_id or row.status == "Ready":
            return
        if row.status == "Creating":
            await daemon.store.propose(DropVolume(id))
        hanging = [one.id for one in row.snapshots] + [one.id for one in row.backups]
        for read in (id, *hanging):  # what a backup is made of goes by its id
            await daemon.unused(read)
        driver, volume = daemon.pools.driver(row.pool), Volume(id, "custom")
        await asyncio.to_thread(records.forget, driver.path(volume), volume)
        await driver.delete(volume)
        await daemon.store.propose(ForgetVolume(id))


async def used(daemon: "Daemon", row: StorageVolume) -> int:
    """Bytes on disk."""
    return await daemon.pools.driver(row.pool).used(Volume(row.id, "custom"))


def disk_of(daemon: "Daemon", project: str, options: Mapping[str, str]) -> tuple[str, bool]:
    """Where this member has the custom volume that a disk device is, and whether owners are shown as on disk.

    "" for other devices, and while it is not there: a disk that cannot be started can be stopped.
    """
    if not names_volume(options):
        return "", False
    row = volume_of_disk(daemon.state, project, options, daemon.member_id)
    if row is None:
        return "", False
    try:
        path = daemon.pools.driver(row.pool).path(Volume(row.id, "custom"))
    except Error as failure:
        log.info("storage volume %s: %s", row.name, failure.message)
        return "", False
    return str(path), on(row.config, "security.unmapped")


def files_of(volume: str) -> str:
    """Name of the lock of who puts other files in the place of the volume's: once it has all others."""
    return f"files of storage volume {volume}"


async def settled(daemon: "Daemon", project: str, options: Mapping[str, str]) -> None:
    """For who is about to give the disk to an instance, whose lock it has: until its files are those to stay.

    From then on they stay, as whoever changes them needs the instance's lock before.
    """
    row = volume_of_disk(daemon.state, project, options, daemon.member_id) if names_volume(options) else None
    if row is not None:
        async with daemon.lock(files_of(row.id)):
            return
