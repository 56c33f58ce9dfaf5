"""Imports: a backup that a client sends becomes an instance of the member that takes it."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import msgspec

from cluster.errors import Forbidden, Invalid, NotFound
from cluster.state.txn import State
from lxdpy.host import backup_archive
from lxdpy.host.backup_archive import INSTANCE, MAIN, CorruptBackup, Reader
from lxdpy.host.shift import Unmap, unshift
from lxdpy.host.storage.driver import Receive, Unpack, Volume
from lxdpy.host.storage.room import room_in
from lxdpy.host.storage.stream import unpack
from lxdpy.resources.backups import index
from lxdpy.resources.backups.actions import IMPORT, folder
from lxdpy.resources.backups.index import Described, Index
from lxdpy.resources.instances.expand import merge, profiles_of
from lxdpy.resources.instances.model import INSTANCES, Instance, InstancesPost, Source
from lxdpy.resources.instances.origin import Origin
from lxdpy.resources.instances.templates import DUE
from lxdpy.resources.profiles.model import PROFILES, Config, Devices
from lxdpy.resources.projects.model import home
from lxdpy.resources.snapshots.model import Snapshot, snapshots_of
from lxdpy.resources.snapshots.names import check_name
from lxdpy.resources.snapshots.readers import used
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.wire import seconds_of

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


Told = TypeVar("Told")


class Import(msgspec.Struct, frozen=True):
    """What is made of a backup."""

    body: InstancesPost
    origin: Origin


async def receive(
    daemon: "Daemon", chunks: AsyncIterable[bytes], file: str, parse: Callable[[bytes], Told]
) -> Told:
    """Keep the file under that name; returns what it says of itself. If that fails nothing is kept."""
    path = folder(daemon) / file
    await asyncio.to_thread(path.parent.mkdir, mode=0o700, exist_ok=True)
    with used(daemon, file):
        try:
            async with room_in(path.parent, "receive the backup"):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as target:
                    async for chunk in chunks:
                        await asyncio.to_thread(target.write, chunk)
            return parse(await asyncio.to_thread(backup_archive.read_index, path))
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def new_name() -> str:
    """Of a file that is to be received."""
    return f"{IMPORT}{uuid4().hex}"


def discard(daemon: "Daemon", file: str) -> None:
    """Remove what was received. Idempotent."""
    (folder(daemon) / file).unlink(missing_ok=True)


def forget(daemon: "Daemon", row: Instance) -> None:
    """Remove the file that it was made of, if it was."""
    if row.source.type == "backup":
        discard(daemon, row.source.file)


def sweep(daemon: "Daemon") -> None:
    """Remove files that nobody imports any more, since a crash."""
    wanted = {row.source.file for row in daemon.state.rows(INSTANCES).values() if row.status == "Creating"}
    for path in folder(daemon).glob(f"{IMPORT}*"):
        if path.name not in wanted and not daemon.in_use[path.name]:
            path.unlink(missing_ok=True)


def drafted(state: State, found: Index, file: str, project: str, name: str, pool: str) -> Import:
    """The request that makes it. `name` and `pool`, unless "", are in place of the backup's own.

    Raises NotFound for a pool that is not there, CorruptBackup for what does not fit together.
    """
    of = found.config.container if found.config else None
    assert of is not None
    own = home(state, project, "profiles")
    names = ("default",) if of.profiles is None else of.profiles
    pool = chosen_pool(state, found, own, pool)
    devices = in_pool(state, project, names, of, pool)
    body = InstancesPost(
        name=name or found.name,
        architecture=of.architecture,
        description=of.description,
        config=own_config(of),
        devices=devices,
        profiles=list(names),
        ephemeral=of.ephemeral,
    )
    origin = Origin(
        Source("backup", file=file),
        notes=notes_of(state, of.config or {}),
        architecture=of.architecture,
        snapshots=tuple(snapshot_of(state, one, project, body.name, pool) for one in listed(found)),
    )
    return Import(body, origin)


def listed(found: Index) -> list[Described]:
    """The snapshots of the backup, in its order. Raises CorruptBackup."""
    described = {one.name: one for one in (found.config and found.config.snapshots) or ()}
    names = found.snapshots or ()
    if len(set(names)) != len(names) or not set(names) <= described.keys():
        raise CorruptBackup("Backup snapshots mismatch")
    return [described[name] for name in names]


def chosen_pool(state: State, found: Index, profiles: str, asked: str) -> str:
    """Where it goes: as asked, where it was, or where the default profile says."""
    pool = asked or found.pool
    if pool in state.rows(POOLS):
        return pool
    profile = state.find(PROFILES, f"{profiles}/default")
    for options in profile.devices.values() if profile and not asked and not found.optimized else ():
        if options.get("type") == "disk" and options.get("path") == "/" and options.get("pool"):
            return options["pool"]
    raise NotFound(f"Storage pool not found: {pool}", pool=pool)


def in_pool(state: State, project: str, profiles: tuple[str, ...], of: Described, pool: str) -> Devices:
    """Its own devices; with a root disk if that of its profiles is in another pool, or there is none."""
    own = of.devices or {}
    devices = merge(profiles_of(state, project, profiles), {}, own)[1]
    for name, options in devices.items():
        if options.get("type") == "disk" and options.get("path") == "/":
            return own if options.get("pool") == pool else {**own, name: {**options, "pool": pool}}
    return {**own, "root": {"type": "disk", "path": "/", "pool": pool}}


def own_config(of: Described) -> Config:
    return {key: value for key, value in (of.config or {}).items() if not key.startswith("volatile.")}


def notes_of(state: State, config: Config) -> Config:
    """The image it stands on, which of its templates its first start writes, and the addresses of its cards
    unless others have these by now.
    """
    taken = {
        value
        for row in state.rows(INSTANCES).values()
        for key, value in row.config.items()
        if key.endswith(".hwaddr")
    }
    return {
        key: value
        for key, value in config.items()
        if key in ("volatile.base_image", DUE)
        or (key.startswith("volatile.") and key.endswith(".hwaddr") and value not in taken)
    }


def snapshot_of(state: State, of: Described, project: str, instance: str, pool: str) -> Snapshot:
    check_name(of.name)
    profiles = ("default",) if of.profiles is None else of.profiles
    try:
        created, expires, used_at = map(seconds_of, (of.created_at, of.expires_at, of.last_used_at))
    except ValueError:
        raise CorruptBackup(f'Invalid backup: a date of snapshot "{of.name}" is none') from None
    return Snapshot(
        project=project,
        instance=instance,
        name=of.name,
        id=uuid4().hex,
        status="Ready",
        created_at=created,
        expires_at=expires,
        architecture=of.architecture,
        description=of.description,
        config=of.config or {},
        devices=in_pool(state, project, profiles, of, pool),
        profiles=profiles,
        ephemeral=of.ephemeral,
        last_used_at=used_at,
    )


def check_optimized(*, optimized: bool, admin: bool) -> None:
    """A stream of btrfs is the kernel's to read: that of a stranger is not taken."""
    if optimized and not admin:
        raise Forbidden("Only administrators may import optimized backups")


async def build(daemon: "Daemon", row: Instance, volume: Volume) -> None:
    """The files of the new instance and its snapshots. Raises CorruptBackup, Exhausted, NotFound."""
    path = folder(daemon) / row.source.file
    if not path.is_file():
        raise NotFound("The file that was to be imported is gone")
    found = index.parse(await asyncio.to_thread(backup_archive.read_index, path))
    unmaps = {one.name: index.unmap_of(one.config or {}) for one in listed(found)}
    of = found.config and found.config.container
    unmaps[MAIN] = index.unmap_of((of and of.config) or {})
    targets = {one.name: Volume(row.volume, snapshot=one.id) for one in snapshots_of(daemon.state, row.key)}
    targets[MAIN] = volume
    async with receiving(daemon, row.pool, found.backend if found.optimized else "") as receive:
        await take_apart(Reader(path, INSTANCE), receive, targets, unmaps)


async def take_apart(
    reader: Reader, receive: Receive, targets: Mapping[str, Volume], unmaps: Mapping[str, Unmap]
) -> None:
    """Make each section the volume that is its target, with the owners as inside."""
    left = dict(targets)
    try:
        while (name := await reader.next()) is not None:
            if name not in left:
                raise CorruptBackup("Backup snapshots mismatch")
            await receive(left.pop(name), reader.chunks(), partial(_own, unmaps[name]))
    finally:
        await reader.close()
    if left:
        missing = "Invalid backup: the files themselves are missing"
        raise CorruptBackup(missing if MAIN in left else "Backup snapshots mismatch")


async def _own(unmap: Unmap, folder: Path) -> None:
    """Make the files the container's own, if they were another host's."""
    if unmap:
        await asyncio.to_thread(unshift, folder, unmap)


@asynccontextmanager
async def receiving(daemon: "Daemon", pool: str, optimized: str) -> AsyncIterator[Receive]:
    """A way to make volumes of sections. `optimized`: the driver whose form they have; "": plain files.

    Raises Invalid unless that is the pool's.
    """
    driver = daemon.pools.driver(pool)
    if optimized:
        if not driver.abilities.optimized or optimized != driver.name:
            differs = f'differs from the target storage pool driver "{driver.name}"'
            raise Invalid(f'Optimized backup storage driver "{optimized}" {differs}', pool=pool)
        async with driver.receiving() as receive:
            yield receive
        return

    async def fill(target: Volume, chunks: AsyncIterable[bytes], finish: Unpack) -> None:
        async def into(folder: Path) -> None:
            await unpack(chunks, folder)
            await finish(folder)

        await driver.fill(target, into)

    yield fill
