"""Instances that are there already, brought up to date with what another server has."""

from typing import TYPE_CHECKING

from cluster.errors import Invalid
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.model import Instance, InstanceSource
from lxdpy.resources.instances.owner import built
from lxdpy.resources.migration.copy import RUNNING, put
from lxdpy.resources.migration.files import hidden_snapshot, reading
from lxdpy.resources.operations.operation import Operation, Options
from lxdpy.resources.remotes import arrivals
from lxdpy.resources.remotes.header import Header, Part
from lxdpy.resources.remotes.link import Progress
from lxdpy.resources.remotes.source import features_of
from lxdpy.resources.remotes.target import Fill, Receiver, receive
from lxdpy.resources.snapshots import actions
from lxdpy.resources.snapshots.commands import CreateSnapshot, FinishSnapshot
from lxdpy.resources.snapshots.model import Snapshot, snapshots_of
from lxdpy.resources.snapshots.readers import used
from lxdpy.resources.storage_pools.model import POOLS

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon


def start(
    daemon: "Daemon", row: Instance, source: InstanceSource, resources: dict[str, list[str]]
) -> Operation:
    """Raises Invalid, Conflict."""
    peer = arrivals.check_source(source)
    built(daemon, row.key)
    if daemon.runtime.state(row.volume).status != "Stopped":
        raise Invalid(RUNNING)
    waiting = None if peer else arrivals.sockets()
    alone = source.instance_only or source.container_only

    async def run(operation: Operation) -> None:
        progress = Progress(row.name, lambda said: operation.progress(fs_progress=said))
        receiver = _Refresh(daemon, row, alone=alone, progress=progress)
        async with arrivals.linked(peer, waiting, progress) as link:
            features = features_of(daemon.state.get(POOLS, row.pool))
            await receive(link, receiver.as_receiver(), features, refresh=True)

    options: Options = {"project": row.project}
    if waiting is not None:
        options |= {"kind": "websocket", "sockets": waiting}
    return daemon.operations.start("Creating instance", resources, run, **options)


class _Refresh:
    """Each snapshot, and what it is now, is there whole or not at all; nothing is locked while it comes."""

    def __init__(self, daemon: "Daemon", row: Instance, *, alone: bool, progress: Progress) -> None:
        self._daemon = daemon
        self._row = row
        self._alone = alone
        self._progress = progress

    def as_receiver(self) -> Receiver:
        return Receiver(self._choose, self._part, self._whole, arrivals.unmap_of_instance)

    async def _choose(self, offer: Header) -> tuple[Part, ...]:
        """Those are the same that have name and time (in seconds) in common, as in LXD. Others here go."""
        if self._alone:
            return ()
        daemon, key = self._daemon, self._row.key
        there = {(one.name, int(one.created_at)): one for one in snapshots_of(daemon.state, key)}
        offered = {(part.name, int(part.created_at)): part for part in offer.snapshots}
        for which, snapshot in there.items():
            if which not in offered:
                await actions.delete(daemon, key, snapshot)
        return tuple(part for which, part in offered.items() if which not in there)

    async def _part(self, part: Part, fill: Fill) -> None:
        snapshot = arrivals.snapshot_of(self._daemon, self._row, part)
        await self._filled(snapshot, fill, f"{self._row.name}/{part.name}", stays=True)

    async def _whole(self, fill: Fill) -> None:
        await self._filled(hidden_snapshot(self._row), fill, self._row.name, stays=False)

    async def _filled(self, snapshot: Snapshot, fill: Fill, name: str, *, stays: bool) -> None:
        daemon, key = self._daemon, self._row.key
        self._progress.name = name
        row = built(daemon, key)
        target = actions.volume(row, snapshot)
        with used(daemon, snapshot.id):
            await daemon.store.propose(CreateSnapshot(snapshot, daemon.member_id))
            try:
                base = reading(daemon, row.pool, Volume(row.volume))
                await fill(daemon.pools.driver(row.pool), target, base)
                if stays:
                    await daemon.store.propose(FinishSnapshot(snapshot.key, snapshot.id))
                else:
                    await put(daemon, key, target)
            except BaseException:
                await actions.discard(daemon, key, snapshot)
                raise
        if not stays:
            await actions.discard(daemon, key, snapshot)
