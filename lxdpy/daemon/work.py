"""What goes on while the daemon runs: the order of its start and of its end.

Start: the API on the local socket and the network, then this host in line with the state; a cluster without
quorum still answers what it knows. Stop: another member leads, so that writes go on there; no new work,
operations end, the log is closed. Containers live on through all of it, unless their host is to stop.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cluster import failpoints
from cluster.errors import Error
from cluster.membership.commands import FoundCluster
from cluster.membership.features import FEATURES
from cluster.membership.identity import Identity
from cluster.membership.model import Cluster, Member
from cluster.raft.store import Identity as RaftIdentity
from cluster.raft.store import Store
from lxdpy import VERSION
from lxdpy.daemon import garbage, job_map, logs, parking
from lxdpy.daemon.context import Daemon
from lxdpy.daemon.fence import Fence
from lxdpy.daemon.garbage import Garbage
from lxdpy.daemon.instance_states import REFRESH_EVERY
from lxdpy.daemon.job_map import JobMap
from lxdpy.daemon.leader import Leader
from lxdpy.daemon.membership import AGAIN, Membership
from lxdpy.daemon.orphans import LOOK_EVERY, Orphans
from lxdpy.daemon.parking import Idleness, Parking
from lxdpy.daemon.periodic import TICK, Periodic
from lxdpy.daemon.reconcile import TEND_EVERY, Reconciler
from lxdpy.daemon.tasks import every, guarded
from lxdpy.resources.instances import boot
from lxdpy.resources.projects.model import DEFAULT, PROJECTS
from lxdpy.resources.server.commands import ConfigureServer, CreateDefaults
from lxdpy.resources.tables import new_machine
from lxdpy.resources.warnings import conditions
from lxdpy.rest.app import Api

log = logging.getLogger(__name__)

DRAIN_WITHIN = 10.0  # seconds for running operations to end when the daemon stops


async def open_log(store: Store, membership: Membership) -> None:
    """Start the store under the identity of `membership`. A fresh one has no log: one that is there goes."""
    folder = membership.root / "cluster" / "raft"
    if membership.identity.fresh:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await store.start()
    await membership.begun()


class Work:
    """What goes on while the daemon runs; the group `group` may use the local socket."""

    def __init__(self, daemon: Daemon, api: Api, group: str | None) -> None:
        self.daemon = daemon
        self.api = api
        self.group = group
        self.reconciler = Reconciler(daemon)
        daemon.introductions.heard = self.reconciler.introduced
        self.periodic = Periodic(daemon)
        self.orphans = Orphans(daemon)
        self.job_map = JobMap(daemon)
        self.garbage = Garbage(lambda: len(daemon.operations.all()))
        idleness = Idleness()
        daemon.gpus.on_look += [idleness.look, self.reconciler.cards_seen]
        self.parking = Parking(daemon, idleness)
        daemon.operations.is_early = lambda: not daemon.current
        daemon.membership.reopen = self.reopen
        daemon.membership.serve = self.serve

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        daemon = self.daemon
        logging.getLogger().addHandler(logs.to_hub(daemon.hub))
        listener, server = daemon.membership.listener, daemon.membership.server
        await listener.start_unix(daemon.root / "unix.socket", self.group, server)
        await daemon.membership.open()
        await self.found()
        await daemon.runtime.start()
        daemon.runtime.on_event(self.reconciler.event)
        daemon.runtime.on_event(daemon.files.event)
        daemon.device_watch.changed = self.reconciler.device_changed
        daemon.store.on_link(daemon.states.linked)
        for name, (seconds, step) in self.loops().items():
            daemon.tasks.create_task(every(seconds, step, name), name=name)
        daemon.spawn(daemon.beat.run(), "heartbeat")
        daemon.spawn(Leader(daemon).run(), "leader")
        daemon.spawn(Fence(daemon).run(), "fence")
        daemon.spawn(daemon.membership.settle_in(), "settling in")
        daemon.spawn(daemon.gpus.run(), "gpus")
        daemon.spawn(self.inventory(), "inventory")
        await daemon.images.sweep()
        self.reconciler.booted = await boot.has_booted(daemon)
        await failpoints.reach("host.looked-at")
        await self.reconciler.sweep()
        self.serve(not daemon.membership.out.is_set())  # one that was removed begins anew first
        daemon.tasks.create_task(every(AGAIN, self.leave, "leaving"), name="leaving")
        daemon.ready.set()
        log.info("ready: member %s of cluster %s", daemon.member_id, daemon.store.cluster_id)
        try:
            yield
        finally:
            await self.end()

    def loops(self) -> dict[str, tuple[float, Callable[[], Awaitable[None]]]]:
        """What is done again and again: seconds in between, and the step."""
        return {
            "instance states": (REFRESH_EVERY, self.daemon.states.refresh),
            "networks": (TEND_EVERY, self.reconciler.tend),
            "periodic": (TICK, self.periodic.step),
            "job map": (job_map.LOOK_EVERY, self.job_map.step),
            "parking": (parking.LOOK_EVERY, self.parking.step),
            "operations of lost members": (LOOK_EVERY, self.orphans.step),
            "garbage": (garbage.LOOK_EVERY, self.garbage.look),
            "warnings": (conditions.LOOK_EVERY, lambda: conditions.look(self.daemon)),
        }

    async def found(self) -> None:
        """The first entries of a new cluster, unless they are there, or this member came by a token."""
        daemon, identity = self.daemon, self.daemon.membership.identity
        if not identity.founder or daemon.state.find(PROJECTS, DEFAULT):
            return
        member = Member(
            id=identity.member_id,
            name="none",
            certificate=daemon.keys.pem(),
            fingerprint=daemon.keys.fingerprint(),
            status="ready",
            architecture=daemon.membership.architecture,
            features=FEATURES,
            version=VERSION,
        )
        await daemon.store.propose(FoundCluster(Cluster(identity.cluster_id, features=FEATURES), member))
        if identity.listen:  # it was removed, and begins anew where it is
            own = {"core.https_address": identity.listen}
            await daemon.store.propose(ConfigureServer({}, identity.member_id, own))
        await failpoints.reach("cluster.founded")
        await daemon.store.propose(CreateDefaults())

    async def inventory(self) -> None:
        """Tell the cluster what this host has, as soon as there is a leader to tell."""
        while True:
            try:
                await self.daemon.membership.report()
            except Error as failure:
                log.info("inventory not reported yet: %s", failure.message)
            else:
                return
            await asyncio.sleep(1)

    def serve(self, ready: bool) -> None:
        """Answer requests, or none; a daemon that is stopping goes on stopping."""
        if self.api.phase != "stopping":
            self.api.phase = "ready" if ready else "starting"

    async def reopen(self, identity: Identity) -> None:
        """Go on under another identity: the same parts, another log."""
        daemon = self.daemon
        voters = identity.voters
        daemon.store.renew(
            RaftIdentity(identity.cluster_id, identity.member_id), new_machine(), voters=voters
        )
        await open_log(daemon.store, daemon.membership)
        await self.found()
        await self.reconciler.sweep()
        daemon.spawn(daemon.membership.settle_in(), "settling in")
        if identity.founder:  # who joins tells it with the rest
            daemon.spawn(self.inventory(), "inventory")

    async def leave(self) -> None:
        """Once this member was removed, begin anew: with all that the sweep has found, be it told before."""
        await self.daemon.membership.out.wait()
        self.serve(False)
        await self.reconciler.pools_settled()
        await self.daemon.membership.begin_anew()

    async def end(self) -> None:
        """In order: instances stop if the host does, another leads, what runs ends, the log is closed."""
        daemon = self.daemon
        self.api.phase = "stopping"
        if daemon.host_stops:
            daemon.current = False  # what ends now has not ended by itself
            await guarded(boot.stop_all(daemon), "stopping all instances")
        await self.reconciler.records.flush()
        await daemon.store.hand_over()
        left = await daemon.operations.drain(DRAIN_WITHIN)
        for operation in left:
            log.warning("operation %s (%s) is cut short", operation.id, operation.description)
        await daemon.membership.listener.close()
        await daemon.guests.stop()
        await daemon.metrics.close()
        await daemon.membership.server.shutdown(1.0)
        await daemon.forwarder.close()
        daemon.device_watch.close()
        await daemon.store.stop()
        await daemon.runtime.stop()
