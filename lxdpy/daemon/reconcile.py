"""Applied changes → actions on what this member owns. The same at the start, for all that changed meanwhile.

Members act only on what they applied: nobody tells another "I changed X". A change pokes the key it concerns,
and the work for a key makes the host so, however often it is told.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cluster.errors import Error
from cluster.raft.store import Applied
from cluster.state.txn import Change
from lxdpy.daemon.level import Level
from lxdpy.daemon.records import Records
from lxdpy.host.gpu.inventory import Gpu
from lxdpy.resources.backups import actions as backups
from lxdpy.resources.backups import restore
from lxdpy.resources.backups.model import Backup
from lxdpy.resources.cluster import renewal
from lxdpy.resources.gpu_queue import actions as gpu_queue
from lxdpy.resources.gpu_queue.model import GPU_QUEUE
from lxdpy.resources.gpus.commands import granted
from lxdpy.resources.images import actions as images
from lxdpy.resources.images.model import IMAGES
from lxdpy.resources.instances import boot, build, given, settle
from lxdpy.resources.instances.model import BUILDING, INSTANCES, Instance
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.migration import move
from lxdpy.resources.migration.model import RESIDUES
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.operations.operation import Operation, Options
from lxdpy.resources.profiles.commands import users
from lxdpy.resources.profiles.model import Profile
from lxdpy.resources.snapshots.model import Snapshot
from lxdpy.resources.storage_pools.model import GONE_POOLS, POOLS
from lxdpy.resources.storage_volumes.model import VOLUMES
from lxdpy.resources.volume_backups import actions as volume_backups
from lxdpy.resources.volume_snapshots import actions as volumes
from lxdpy.resources.warnings.model import DHCP_ENDED
from lxdpy.resources.warnings.raising import raise_warning
from lxdpy.resources.wire import url

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

CATCH_UP_FOR = 5.0  # seconds a member waits for a leader's word, again and again
CATCH_UP_EVERY = 0.5  # seconds in between
TEND_EVERY = 5.0  # seconds between looks at what may have ended by itself; a look takes 0.1 ms a network
POOL_WITHIN = 60.0  # seconds that is waited for a pool, which may still be made or opened


class Reconciler:
    """Watches the store from its creation on, and acts from the first `sweep` on."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._pools = Level(daemon.tasks, self._pool, "pool")
        self._volumes = Level(daemon.tasks, lambda key: volumes.settle(daemon, key), "storage volume")
        self._networks = Level(daemon.tasks, daemon.bridges.ensure, "network")
        self._images = Level(daemon.tasks, lambda key: images.drop(daemon, key), "image")
        self._certificate = Level(daemon.tasks, lambda _: renewal.settle(daemon), "certificate")
        self._identity = Level(daemon.tasks, self._refresh, "identity")
        self._later_members = Level(daemon.tasks, self._catch_up_with, "members of a later state")
        self._moves = Level(daemon.tasks, lambda key: move.drive(daemon, key), "move")
        self._backups = Level(daemon.tasks, lambda id: backups.settle(daemon, id), "backup")
        self._volume_backups = Level(
            daemon.tasks, lambda id: volume_backups.settle(daemon, id), "backup of a volume"
        )
        self._residues = Level(daemon.tasks, lambda key: move.clear(daemon, key), "residue")
        self.records = Records(daemon)
        self._instances = Level(daemon.tasks, lambda key: settle.settle(daemon, key), "instance")
        self.booted = False  # whether the host was, since a daemon looked at its instances
        self._started = False  # who is to be started with the daemon
        self._numbers: dict[str, object] | None = None  # of the files of each GPU, at the last look
        daemon.store.watch(self.applied)

    def applied(self, applied: Applied) -> None:
        """Called on the API loop, in the order of the log."""
        if not applied.snapshot:
            for event in all_events(applied.changes):
                self._daemon.hub.lifecycle(event, applied.proposed_at)
        for change in applied.changes:
            self._react(change)
            if self._daemon.current:
                self.records.changed(change)

    def _react(self, change: Change) -> None:
        """What of this member's work the change may concern."""
        before, after = change.before, change.after
        match change.table:
            case "instances":
                self._instance(before, after)
            case "snapshots":
                self._snapshot(change.key, after)
            case "backups" | "residues":
                self._files(change)
            case "storage_pools" | "gone_pools" | "storage_volumes":
                self._storage(change)
            case "networks":
                self._networks.poke(change.key)
            case "gpu_queue" if after is not None and self._daemon.current:
                gpu_queue.carry_out(self._daemon, after)
            case "images" if after is None:
                self._images.poke(before.fingerprint)
            case "profiles" if before is not None and after is not None:
                self._profile(after)
            case "members" | "cluster" | "settings":
                self._identity.poke("")
                self._certificate.poke("")

    def _storage(self, change: Change) -> None:
        if change.table != "storage_volumes":
            self._pools.poke((change.after or change.before).name)
            return
        if change.after is not None and volumes.is_to_settle(change.after):
            self._volumes.poke(change.key)  # that waits for whoever is at work on it
        if self._daemon.current:
            for id in volume_backups.changed(change.before, change.after):
                self._volume_backups.poke(id)

    async def _pool(self, name: str) -> None:
        """Also without images that are not known any more, as it was not open when they went, or a crash came
        in between.
        """
        daemon = self._daemon
        await daemon.pools.ensure(name)
        for pool in daemon.pools.opened() if daemon.current else ():
            for fingerprint in await pool.images():
                if not images.is_known(daemon, fingerprint):
                    self._images.poke(fingerprint)

    def _files(self, change: Change) -> None:
        """What lies about on this host follows its rows."""
        if change.table == "backups":
            self._backup(change.before, change.after)
        elif self._daemon.current:
            self._residues.poke(change.key)

    def introduced(self) -> None:
        """This member may have been told whom to trust."""
        self._identity.poke("")

    async def _refresh(self, _: str) -> None:
        membership = self._daemon.membership
        await membership.refresh()
        await self._daemon.metrics.follow()
        if self._daemon.state.index < membership.identity.index:
            self._later_members.poke("")

    async def _catch_up_with(self, _: str) -> None:
        """Until its state is as new as what it was told of the voters, a member does not follow its own."""
        while (index := self._daemon.membership.identity.index) > self._daemon.state.index:
            await self._daemon.store.wait_index(index)
        self._identity.poke("")

    def _instance(self, before: Instance | None, after: Instance | None) -> None:
        daemon = self._daemon
        row = after or before
        if after is None and before is not None:
            daemon.rendered.forget(before.key)
        if row is None or after is None or not daemon.current:
            return  # an old entry: what became of it is seen once this member has caught up
        if after.move is not None and (before is None or before.move != after.move):
            self._moves.poke(after.key)
        if after.location != daemon.member_id:
            return
        if after.status == "Creating" and (before is None or before.uuid != after.uuid):
            self.build(after)
        elif after.reserved is not None and before is not None and before.move is not None:
            self._instances.poke(after.key)  # it was not moved, and may have to be started again
        elif after.status in ("Running", "Frozen") and before is not None and _differs(before, after):
            daemon.states.changed(after)

    def build(self, row: Instance) -> None:
        """Start the operation that the row announced; any client may have asked for it already."""
        daemon = self._daemon
        path = url("instances", row.name, project=row.project)
        resources = {"containers": [path.replace("instances", "containers", 1)], "instances": [path]}

        async def run(operation: Operation) -> None:
            await self._pool_settled(row.pool)  # if it is not open then, the build itself says why
            await build.build(daemon, row.key, operation)

        options: Options = {"id": row.operation, "project": row.project}
        options["may_cancel"] = row.source.remote is not None
        arrival = daemon.arrivals.get(row.operation)
        if arrival is not None and arrival.sockets is not None:
            options |= {"kind": "websocket", "sockets": arrival.sockets}
        daemon.operations.start(BUILDING[row.source.type], resources, run, **options)

    async def _pool_settled(self, name: str) -> None:
        """Until it is open, or could not be opened, or it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POOL_WITHIN):
                await self._pools.settled(name)

    async def pools_settled(self) -> None:
        """Likewise, of all that are known."""
        for name in list(self._daemon.state.rows(POOLS)):
            await self._pool_settled(name)

    def _snapshot(self, key: str, row: Snapshot | None) -> None:
        """If whoever makes or deletes it should fail halfway, it is tidied away: behind its back, by lock."""
        if row is None or row.status == "Ready":
            self._daemon.rendered.forget(key)
            return
        instance = self._daemon.state.find(INSTANCES, f"{row.project}/{row.instance}")
        if self._daemon.current and instance is not None and instance.location == self._daemon.member_id:
            self._instances.poke(instance.key)

    def _backup(self, before: Backup | None, after: Backup | None) -> None:
        row = after or before
        if row is not None and self._daemon.current and (after is None or after.status != "Ready"):
            self._backups.poke(row.id)

    def _profile(self, profile: Profile) -> None:
        """Running instances of this member follow a changed profile."""
        for row in users(self._daemon.state, profile):
            if row.location == self._daemon.member_id and row.status in ("Running", "Frozen"):
                self._instances.poke(row.key)

    async def sweep(self) -> None:
        """Bring this host in line with the whole state: after a start, or another identity was taken on.

        What is on disk of the log may be old, so instances have to wait until this member has caught up.
        """
        daemon, state = self._daemon, self._daemon.state
        daemon.current = False
        self.introduced()
        for name in state.rows(POOLS):
            self._pools.poke(name)
        for key in state.rows(NETWORKS):
            self._networks.poke(key)
        await daemon.runtime.reattach([row.volume for row in self._mine()])
        daemon.spawn(self._catch_up(), "catching up")

    async def _catch_up(self) -> None:
        """As soon as this member knows what the cluster has agreed on, look at its instances."""
        while True:
            try:
                await self._daemon.store.read_index(timeout=CATCH_UP_FOR)
            except Error as failure:
                log.info("not caught up yet: %s", failure.message)
                await asyncio.sleep(CATCH_UP_EVERY)
            else:
                return await self._compare()

    def _mine(self) -> list[Instance]:
        me = self._daemon.member_id
        return [row for row in self._daemon.state.rows(INSTANCES).values() if row.location == me]

    async def _compare(self) -> None:
        """Instances as the cluster knows them, and as they are found."""
        daemon = self._daemon
        await daemon.runtime.reattach([row.volume for row in self._mine()])
        known = await given.volumes(daemon)
        kept, of_volumes = await backups.ids(daemon), await volume_backups.ids(daemon)
        self._identity.poke("")  # its file may be older than the state: it is written after
        self._certificate.poke("")
        daemon.current = True  # and no await from here on: what is applied from now on is told to `applied`
        for pool in [*daemon.state.rows(GONE_POOLS).values(), *daemon.state.rows(POOLS).values()]:
            self._pools.poke(pool.name)
        for volume in daemon.state.rows(VOLUMES).values():
            if volume.status == "Creating" or volumes.is_to_settle(volume):
                self._volumes.poke(volume.id)
        booted, self.booted = self.booted, False
        for row in self._mine():
            lives = daemon.runtime.state(row.volume).status != "Stopped"
            if booted and not lives and row.status in ("Running", "Frozen"):
                daemon.cut_off.add(row.key)
            self._found(row, known=lives or row.volume in known)
        if not self._started:
            self._started = True
            daemon.spawn(boot.autostart(daemon, self._instances.settled), "autostart")
        for turn in daemon.state.rows(GPU_QUEUE).values():
            gpu_queue.carry_out(daemon, turn)
        self._left_over(kept, of_volumes)

    def _left_over(self, backups: Iterable[str], of_volumes: Iterable[str]) -> None:
        """What a crash may have left half done, and files of what is gone."""
        daemon, state = self._daemon, self._daemon.state
        for row in state.rows(INSTANCES).values():
            if row.move is not None:
                self._moves.poke(row.key)
        for key in state.rows(RESIDUES):
            self._residues.poke(key)
        for id in backups:
            self._backups.poke(id)
        for id in of_volumes:
            self._volume_backups.poke(id)
        restore.sweep(daemon)
        wanted = {row.fingerprint for row in state.rows(IMAGES).values()}
        for fingerprint in set(daemon.images.fingerprints()) - wanted:
            self._images.poke(fingerprint)
        for key in daemon.bridges.strays():
            self._networks.poke(key)
        self.records.all()

    async def tend(self) -> None:
        """Make again what has ended by itself."""
        ended = self._daemon.bridges.failed()
        for key in ended:
            self._networks.poke(key)
        for key in ended:
            project, _, name = key.partition("/")
            entity = url("networks", name, project=project)
            await raise_warning(self._daemon, DHCP_ENDED, "It is started again", entity=entity)

    def _found(self, row: Instance, *, known: bool) -> None:
        if row.status == "Creating":
            self.build(row)  # a build that a crash cut short is done again
        elif known or settle.may_be_off(self._daemon, row):
            self._instances.poke(row.key)

    def device_changed(self, key: str) -> None:
        """A device that a running instance waits for, or has, may have come or gone."""
        self._instances.poke(key)

    def cards_seen(self, cards: Sequence[Gpu]) -> None:
        """Instances with GPUs are looked at again when these have files of other numbers than before, or for
        the first time: what was looked at before may have been others.

        Those too that are not said to run: one that is just being started may have the old files already.
        """
        numbers: dict[str, object] = {gpu.uuid: (gpu.nodes, gpu.mig) for gpu in cards}
        before, self._numbers = self._numbers, numbers
        if before == numbers or not self._daemon.current:
            return
        for row in self._mine():
            if granted(row.config):
                self._instances.poke(row.key)

    def event(self, volume: str, event: str) -> None:
        """From the runtime: "started", "stopped", "rebooted"."""
        if event == "started" or not self._daemon.current:
            return
        for row in self._daemon.state.rows(INSTANCES).values():
            if row.volume == volume and row.location == self._daemon.member_id:
                self._instances.poke(row.key)


def _differs(before: Instance, after: Instance) -> bool:
    """Whether another container runs, or it does so in another way."""
    return before.status != after.status or before.last_used_at != after.last_used_at
