"""Custom volumes from server to server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from lxdpy.host.shift import Unmap
from lxdpy.resources.backups.index import unmap_of
from lxdpy.resources.operations.operation import Operation, Options
from lxdpy.resources.operations.registry import Work as Run
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.remotes.arrivals import linked, sockets
from lxdpy.resources.remotes.header import Header, Part
from lxdpy.resources.remotes.link import Progress
from lxdpy.resources.remotes.model import Peer, Target, peer_of
from lxdpy.resources.remotes.source import Offer, features_of, send
from lxdpy.resources.remotes.target import Base, Fill, Receiver, Work, nothing, receive
from lxdpy.resources.snapshots.names import check_name
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes import actions
from lxdpy.resources.storage_volumes.actions import on_disk
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume, VolumeSnapshot
from lxdpy.resources.volume_backups.restore import IDMAP, known_config
from lxdpy.resources.volume_snapshots import actions as snapshots
from lxdpy.resources.volume_snapshots.commands import (
    CreateVolumeSnapshot,
    FinishVolumeSnapshot,
    RestoredVolume,
)
from lxdpy.resources.volume_snapshots.model import ready
from lxdpy.rest.websocket import Sockets

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def offer(
    daemon: "Daemon", row: StorageVolume, target: Target | None, project: str, *, alone: bool
) -> Operation:
    """To whoever opens the operation's websockets, or to `target`. Raises Invalid."""
    peer = peer_of(target.operation, target.certificate, target.secrets, "target") if target else None
    waiting = None if peer else sockets()
    parts = [] if alone else ready(row)

    async def run(operation: Operation) -> None:
        progress = Progress(row.name, lambda said: operation.progress(fs_progress=said))
        async with linked(peer, waiting, progress) as link, daemon.lock(f"storage volume {row.id}"):
            await send(offer_of(daemon, daemon.state.get(VOLUMES, row.id), parts), link)

    return _started(daemon, "Migrating storage volume", run, waiting, project)


def offer_of(daemon: "Daemon", row: StorageVolume, parts: list[VolumeSnapshot]) -> Offer:
    ids = {one.name: one.id for one in parts}
    driver = daemon.pools.driver(row.pool)

    @asynccontextmanager
    async def folder(name: str) -> AsyncIterator[Path]:
        yield driver.path(on_disk(row, ids[name] if name else ""))

    described = (
        Part(one.name, one.config, created_at=one.created_at, expires_at=one.expires_at) for one in parts
    )
    return Offer(daemon.state.get(POOLS, row.pool), tuple(described), folder, only=())


def take(
    daemon: "Daemon", row: StorageVolume, peer: Peer | None, theirs: Config, project: str, *, alone: bool
) -> Operation:
    """Make it of what the peer offers, or of what will be brought; `theirs`: its config there.

    One that is there is made the same again.
    """
    waiting = None if peer else sockets()
    there = daemon.state.find(VOLUMES, row.id) is not None
    kind = _Again if there else _New

    async def run(operation: Operation) -> None:
        progress = Progress(row.name, lambda said: operation.progress(fs_progress=said))
        taking = kind(daemon, row, theirs, alone=alone)
        async with linked(peer, waiting, progress) as link:
            features = features_of(daemon.state.get(POOLS, row.pool))
            await receive(link, taking.as_receiver(), features, refresh=there)

    return _started(daemon, "Copying storage volume", run, waiting, project)


def _started(
    daemon: "Daemon", description: str, run: Run, waiting: Sockets | None, project: str
) -> Operation:
    options: Options = {"project": project, "may_cancel": True}
    if waiting is not None:
        options |= {"kind": "websocket", "sockets": waiting}
    return daemon.operations.start(description, {}, run, **options)


class _New:
    """Recorded when it is known which snapshots come along."""

    def __init__(self, daemon: "Daemon", row: StorageVolume, theirs: Config, *, alone: bool) -> None:
        self._daemon = daemon
        self._row = row
        self._theirs = theirs
        self._alone = alone
        self._before = ""  # id of the snapshot that came last

    def as_receiver(self) -> Receiver:
        return Receiver(self._choose, self._part, self._whole, self._unmap, self._around)

    async def _choose(self, offer: Header) -> tuple[Part, ...]:
        parts = () if self._alone else offer.snapshots
        made = tuple(_snapshot_of(self._daemon, self._row, part) for part in parts)
        self._row = msgspec.structs.replace(self._row, snapshots=made)
        return parts

    async def _around(self, work: Work) -> None:
        await actions.create(self._daemon, self._row, work)

    async def _part(self, part: Part, fill: Fill) -> None:
        one = next(one for one in self._row.snapshots if one.name == part.name)
        await self._filled(fill, one.id)
        self._before = one.id

    async def _whole(self, fill: Fill) -> None:
        await self._filled(fill, "")

    async def _filled(self, fill: Fill, id: str) -> None:
        driver = self._daemon.pools.driver(self._row.pool)
        base: Base = _at(driver.path(on_disk(self._row, self._before))) if self._before else nothing()
        await fill(driver, on_disk(self._row, id), base)

    def _unmap(self, _: Header, part: Part | None) -> Unmap:
        return unmap_of(part.config if part else self._theirs, IDMAP)


class _Again(_New):
    """As in LXD, snapshots that the source has no more go. No instance that has it may run meanwhile."""

    async def _choose(self, offer: Header) -> tuple[Part, ...]:
        if self._alone:
            return ()
        daemon, row = self._daemon, self._row
        there = {(one.name, int(one.created_at)): one for one in ready(row)}
        offered = {(part.name, int(part.created_at)): part for part in offer.snapshots}
        for which, one in there.items():
            if which not in offered:
                await snapshots.delete(daemon, row.id, one.id)
        return tuple(part for which, part in offered.items() if which not in there)

    async def _around(self, work: Work) -> None:
        daemon, id = self._daemon, self._row.id
        async with daemon.lock(f"storage volume {id}"), snapshots.at_rest(daemon, id) as row:
            self._row = row
            await work()
            await daemon.store.propose(RestoredVolume(id))

    async def _part(self, part: Part, fill: Fill) -> None:
        new = _snapshot_of(self._daemon, self._row, part)
        await self._daemon.store.propose(CreateVolumeSnapshot(self._row.id, new))
        await self._filled(fill, new.id)
        await self._daemon.store.propose(FinishVolumeSnapshot(self._row.id, new.id))

    async def _filled(self, fill: Fill, id: str) -> None:
        driver = self._daemon.pools.driver(self._row.pool)
        await fill(driver, on_disk(self._row, id), _at(driver.path(on_disk(self._row))))


@asynccontextmanager
async def _at(folder: Path) -> AsyncIterator[Path]:
    yield folder


def _snapshot_of(daemon: "Daemon", row: StorageVolume, part: Part) -> VolumeSnapshot:
    check_name(part.name)
    config = known_config(daemon.state.get(POOLS, row.pool), part.config)
    return VolumeSnapshot(
        uuid4().hex, part.name, "Ready", config=config, created_at=part.created_at, expires_at=part.expires_at
    )
