"""The owner's part of backups: writing the file, removing it, tidying after a crash."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import failpoints
from cluster.errors import Error
from lxdpy.host.backup_archive import END, HEADER, INDEX, INSTANCE, entry, without_end
from lxdpy.host.storage.driver import Volume
from lxdpy.host.storage.stream import pack
from lxdpy.host.undo import Undo
from lxdpy.resources.backups import index
from lxdpy.resources.backups.commands import CreateBackup, DeleteBackup, FinishBackup, RemoveBackup
from lxdpy.resources.backups.model import BACKUPS, Backup
from lxdpy.resources.backups.writing import names_in, spooled, write
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.owner import built
from lxdpy.resources.migration.files import reading, still
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.snapshots.model import Snapshot, snapshots_of
from lxdpy.resources.snapshots.readers import used

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

IMPORT = ".import-"  # how the names of files begin that clients have sent


def folder(daemon: "Daemon") -> Path:
    return daemon.root / "backups"


def path_of(daemon: "Daemon", backup: Backup) -> Path:
    return folder(daemon) / backup.id


async def create(daemon: "Daemon", key: str, backup: Backup, compression: str, operation: Operation) -> None:
    """Raises AlreadyExists, Exhausted; then nothing is left. The instance may run, and be used, meanwhile."""
    row = built(daemon, key)
    async with daemon.lock(f"backup {backup.id}"):
        await daemon.store.propose(CreateBackup(backup, daemon.member_id))
        async with Undo() as undo:
            undo.push(_delete, daemon, backup)
            await write(path_of(daemon, backup), _tarball(daemon, row, backup), compression, operation)
            await failpoints.reach("backup.written")
            await daemon.store.propose(FinishBackup(backup.key, backup.id))


async def _tarball(daemon: "Daemon", row: Instance, backup: Backup) -> AsyncGenerator[bytes, None]:
    """A pool without a form of its own for that is not optimized, whatever was asked for; as in LXD."""
    now = time.time()
    optimized = backup.optimized and daemon.pools.driver(row.pool).abilities.optimized
    snapshots = [] if backup.instance_only else snapshots_of(daemon.state, row.key)
    with used(daemon, *(one.id for one in snapshots)):  # of all, until the last is written
        tree = index.index_of(daemon.state, row, snapshots, optimized=optimized)
        yield entry(INDEX, index.text_of(tree), now)
        if optimized:
            yield entry(HEADER, index.text_of(index.header_of(one.name for one in snapshots)), now)
        own = {"backup.yaml": index.text_of(tree["config"])}
        parent: Snapshot | None = None
        for one in (*snapshots, None):
            extra = {} if one else own
            section = (
                _stream(daemon, row, one, parent, extra) if optimized else _files(daemon, row, one, extra)
            )
            async with aclosing(section) as chunks:
                async for chunk in chunks:
                    yield chunk
            parent = one
    yield END


async def _files(
    daemon: "Daemon", row: Instance, snapshot: Snapshot | None, extra: Mapping[str, bytes]
) -> AsyncGenerator[bytes, None]:
    """One section, without the end of its tarball."""
    below = INSTANCE.below(snapshot.name if snapshot else "")
    for name, content in extra.items():
        yield entry(f"{below}/{name}", content, time.time())
    async with (
        still(daemon, row, snapshot.id if snapshot else "") as volume,
        reading(daemon, row.pool, volume) as source,
        aclosing(pack(source, below)) as packed,
        aclosing(without_end(packed)) as chunks,
    ):
        async for chunk in chunks:
            yield chunk


async def _stream(
    daemon: "Daemon",
    row: Instance,
    snapshot: Snapshot | None,
    parent: Snapshot | None,
    extra: Mapping[str, bytes],
) -> AsyncGenerator[bytes, None]:
    """One section in the form of the pool's driver."""
    name = INSTANCE.below(snapshot.name if snapshot else "") + ".bin"
    driver = daemon.pools.driver(row.pool)
    below = Volume(row.volume, snapshot=parent.id) if parent else None
    async with (
        still(daemon, row, snapshot.id if snapshot else "") as volume,
        aclosing(spooled(name, driver.send(volume, below, extra), folder(daemon))) as chunks,
    ):
        async for chunk in chunks:
            yield chunk


async def delete(daemon: "Daemon", backup: Backup) -> None:
    """Fine if it is gone by then."""
    async with daemon.lock(f"backup {backup.id}"):
        await daemon.store.propose(RemoveBackup(backup.key, backup.id))
        await failpoints.reach("backup.delete")
        await _delete(daemon, backup)


async def _delete(daemon: "Daemon", backup: Backup) -> None:
    """The file, then the row."""
    await asyncio.to_thread(path_of(daemon, backup).unlink, missing_ok=True)
    await daemon.store.propose(DeleteBackup(backup.key, backup.id))


async def expire(daemon: "Daemon") -> None:
    """Remove those of this member whose time is over."""
    now = time.time()
    for row in list(daemon.state.rows(BACKUPS).values()):
        instance = daemon.state.find(INSTANCES, f"{row.project}/{row.instance}")
        here = instance is not None and instance.location == daemon.member_id
        if here and row.status == "Ready" and 0 < row.expires_at <= now:
            try:
                await delete(daemon, row)
            except Error as later:
                log.info("expired backup %s stays for now: %s", row.key, later.message)
            else:
                log.info("expired backup %s was removed", row.key)


async def settle(daemon: "Daemon", id: str) -> None:
    """Remove a file (by name) whose row is gone, and rows of what was not finished. Idempotent."""
    async with daemon.lock(f"backup {id}"):
        row = next((row for row in daemon.state.rows(BACKUPS).values() if row.id == id), None)
        instance = daemon.state.find(INSTANCES, f"{row.project}/{row.instance}") if row else None
        if row is None or instance is None or instance.location != daemon.member_id:
            await asyncio.to_thread((folder(daemon) / id).unlink, missing_ok=True)
        elif row.status != "Ready":
            log.info("backup %s was not finished: it is removed", row.key)
            await _delete(daemon, row)


async def ids(daemon: "Daemon") -> set[str]:
    """Of the files that are here, and of rows of this member that are not finished."""
    return await names_in(folder(daemon)) | {
        row.id for row in daemon.state.rows(BACKUPS).values() if row.status != "Ready"
    }
