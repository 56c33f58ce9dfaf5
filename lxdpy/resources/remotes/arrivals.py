"""New instances that another server sends: announced to their owner before they are recorded, then built."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from cluster.errors import Invalid, NotFound, Unsupported
from lxdpy.host.shift import Unmap
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.backups.index import IDMAP, Described, unmap_of
from lxdpy.resources.backups.restore import in_pool
from lxdpy.resources.gpu_queue.asking import coming
from lxdpy.resources.gpus.racing import unless_raced
from lxdpy.resources.instances import create
from lxdpy.resources.instances.cloud_init import NOTE
from lxdpy.resources.instances.commands import check_name_free
from lxdpy.resources.instances.model import INSTANCES, Instance, InstanceSource, InstancesPost, Source
from lxdpy.resources.instances.origin import Origin
from lxdpy.resources.migration.files import reading
from lxdpy.resources.migration.move import LIVE
from lxdpy.resources.operations.operation import Operation
from lxdpy.resources.profiles.model import Config
from lxdpy.resources.remotes.header import Header, Part
from lxdpy.resources.remotes.link import LONGEST, Link, Progress, awaited, called
from lxdpy.resources.remotes.model import CONTROL, FILES, Arrival, Peer, peer_of
from lxdpy.resources.remotes.source import features_of
from lxdpy.resources.remotes.target import Base, Fill, Receiver, nothing, receive
from lxdpy.resources.snapshots.commands import CreateSnapshot, FinishSnapshot
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.snapshots.names import check_name
from lxdpy.resources.snapshots.readers import used
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.rest.websocket import Sockets

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

KEPT = 120.0  # seconds an arrival is known without a row: the log is that late only without a majority


class Expected:
    """An arrival at its owner: how the link to the source comes about."""

    def __init__(self, arrival: Arrival) -> None:
        self.alone = arrival.alone
        self.peer = arrival.peer
        self.sockets = None if arrival.peer else sockets()


def sockets() -> Sockets:
    """Those that the other end opens."""
    return Sockets((CONTROL, FILES), limit=LONGEST, flat=True)


def expect(daemon: "Daemon", arrival: Arrival) -> dict[str, str]:
    """What the owner of a row that comes has to know. Returns the secrets by which the source calls."""
    known = Expected(arrival)
    daemon.arrivals[arrival.operation] = known
    asyncio.get_running_loop().call_later(KEPT, daemon.arrivals.pop, arrival.operation, None)
    return known.sockets.fds if known.sockets else {}


def check_source(source: InstanceSource) -> Peer | None:
    """Where to fetch it from, None if it will be brought. Raises Invalid."""
    if source.live:
        raise Invalid(LIVE.replace("source", "destination"), key="source.live")
    if source.mode == "push":
        return None
    if source.mode not in ("", "pull"):
        raise Unsupported(f"Mode {source.mode} not implemented", key="source.mode", value=source.mode)
    return peer_of(source.operation, source.certificate, source.secrets, "source")


async def record(
    daemon: "Daemon", body: InstancesPost, project: str, target: str
) -> tuple[Instance, dict[str, str]]:
    """Check, place, tell the owner and record. Returns the row, and the secrets for the source.

    Raises what `create.record` does.
    """
    peer = check_source(body.source)
    origin = Origin(Source("migration"), notes=notes_of(daemon, body.config or {}))
    draft = create.prepared(daemon, body, project, target, origin)
    alone = body.source.instance_only or body.source.container_only

    async def attempt() -> tuple[Instance, dict[str, str]]:
        check_name_free(daemon.state, draft.row)
        command = coming(daemon, draft)
        row = command.instance
        secrets = await _announced(daemon, row.location, Arrival(row.operation, alone, peer))
        state = await daemon.store.propose(command)
        return state.find(INSTANCES, row.key) or row, secrets

    return await unless_raced(attempt, create.TRIES, "each time a place was found")


async def _announced(daemon: "Daemon", owner: str, arrival: Arrival) -> dict[str, str]:
    if owner == daemon.member_id:
        return expect(daemon, arrival)
    answer = await daemon.forwarder.ask(owner, "POST", "/internal/1.0/arrivals", arrival)
    return msgspec.convert(answer, dict[str, str])


def notes_of(daemon: "Daemon", config: Config) -> Config:
    """Of a move, which is still the same instance to others: the image, its addresses unless another has
    them by now, and what cloud-init knows it by.
    """
    taken = {
        value
        for row in daemon.state.rows(INSTANCES).values()
        for key, value in row.config.items()
        if key.endswith(".hwaddr")
    }
    return {
        key: value
        for key, value in config.items()
        if key in ("volatile.base_image", NOTE)
        or (key.startswith("volatile.") and key.endswith(".hwaddr") and value not in taken)
    }


async def build(daemon: "Daemon", row: Instance, volume: Volume, operation: Operation) -> None:
    """The files and the snapshots of a new instance. Raises NotFound if a crash has cut it off."""
    expected = daemon.arrivals.pop(row.operation, None)
    if expected is None:
        raise NotFound("The transfer was cut off: the member that it came to was restarted")
    progress = Progress(row.name, lambda said: operation.progress(fs_progress=said))
    receiver = _Build(daemon, row, volume, alone=expected.alone, progress=progress)
    async with linked(expected.peer, expected.sockets, progress) as link:
        features = features_of(daemon.state.get(POOLS, row.pool))
        await receive(link, receiver.as_receiver(), features, refresh=False)


@asynccontextmanager
async def linked(peer: Peer | None, waiting: Sockets | None, progress: Progress) -> AsyncIterator[Link]:
    """To who waits for us, or who calls. Raises Unavailable."""
    if peer is not None:
        async with called(peer, progress) as link:
            yield link
        return
    assert waiting is not None
    try:
        async with awaited(waiting, progress) as link:
            yield link
    finally:
        waiting.close()


class _Build:
    """Into volumes that nobody uses yet; each snapshot has most in common with the one before."""

    def __init__(
        self, daemon: "Daemon", row: Instance, volume: Volume, *, alone: bool, progress: Progress
    ) -> None:
        self._daemon = daemon
        self._row = row
        self._volume = volume
        self._alone = alone
        self._progress = progress
        self._before: Volume | None = None

    def as_receiver(self) -> Receiver:
        return Receiver(self._choose, self._part, self._whole, unmap_of_instance)

    async def _choose(self, offer: Header) -> tuple[Part, ...]:
        for part in offer.snapshots:
            check_name(part.name)
        return () if self._alone else offer.snapshots

    async def _part(self, part: Part, fill: Fill) -> None:
        daemon, snapshot = self._daemon, snapshot_of(self._daemon, self._row, part)
        target = Volume(self._row.volume, snapshot=snapshot.id)
        with used(daemon, snapshot.id):
            await daemon.store.propose(CreateSnapshot(snapshot, daemon.member_id))
            await self._fill(fill, target, f"{self._row.name}/{part.name}")
            await daemon.store.propose(FinishSnapshot(snapshot.key, snapshot.id))

    async def _whole(self, fill: Fill) -> None:
        await self._fill(fill, self._volume, self._row.name)

    async def _fill(self, fill: Fill, target: Volume, name: str) -> None:
        self._progress.name = name
        pool = self._row.pool
        base: Base = reading(self._daemon, pool, self._before) if self._before else nothing()
        await fill(self._daemon.pools.driver(pool), target, base)
        self._before = target


def unmap_of_instance(offer: Header, part: Part | None) -> Unmap:
    """LXD says it of each snapshot in its config. Raises CorruptBackup."""
    if part is not None and IDMAP in part.config:
        return unmap_of(part.config)
    return Unmap(offer.idmap)


def snapshot_of(daemon: "Daemon", row: Instance, part: Part) -> Snapshot:
    """As the instance's own. What the source noted of its host is not taken."""
    check_name(part.name)
    kept = {
        key: value
        for key, value in part.config.items()
        if not key.startswith("volatile.") or key == "volatile.base_image" or key.endswith(".hwaddr")
    }
    return Snapshot(
        project=row.project,
        instance=row.name,
        name=part.name,
        id=uuid4().hex,
        created_at=part.created_at or time.time(),
        expires_at=part.expires_at,
        architecture=part.architecture or row.architecture,
        config=kept,
        devices=in_pool(daemon.state, row.project, part.profiles, Described(devices=part.devices), row.pool),
        profiles=part.profiles,
        ephemeral=part.ephemeral,
        last_used_at=part.used_at,
    )
