"""Daemon: what handlers and actions may reach. One a process; imported by them, so it imports none of
them.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from cluster.errors import Error
from cluster.membership.model import is_clustered, name_of
from cluster.state.txn import State
from lxdpy.daemon.tasks import guarded
from lxdpy.host.devices.watch import DeviceWatch
from lxdpy.host.paths import HostRoot

if TYPE_CHECKING:
    from cluster.raft.store import Applied, Store
    from cluster.tls.certificates import KeyPair
    from lxdpy.daemon.beat import Beat
    from lxdpy.daemon.hub import Hub
    from lxdpy.daemon.instance_states import InstanceStates
    from lxdpy.daemon.introductions import Introductions
    from lxdpy.daemon.membership import Membership
    from lxdpy.daemon.metrics_port import MetricsPort
    from lxdpy.host.devices.registry import Devices
    from lxdpy.host.images import ImageStore
    from lxdpy.host.lxc.runtime import Runtime
    from lxdpy.host.network.registry import Networks
    from lxdpy.resources.gpus.actions import GpuWatch
    from lxdpy.resources.guest.sockets import Guests
    from lxdpy.resources.instances.consoles import Consoles
    from lxdpy.resources.instances.file_sessions import FileSessions
    from lxdpy.resources.instances.rendered import Rendered
    from lxdpy.resources.networks.actions import Bridges
    from lxdpy.resources.operations.registry import Operations
    from lxdpy.resources.remotes.arrivals import Expected
    from lxdpy.resources.storage_pools.actions import Pools
    from lxdpy.rest.forward import Forwarder


@dataclass
class Daemon:
    """The parts of a running member. Hands only: what is true of the cluster is in `store.state`."""

    root: Path  # $LXD_DIR
    host: HostRoot  # the kernel's trees
    gpu_host: HostRoot  # those in which GPUs are looked for: others when they are made up
    keys: KeyPair  # this member's own certificate
    tasks: asyncio.TaskGroup
    store: Store
    beat: Beat
    introductions: Introductions
    hub: Hub
    operations: Operations
    forwarder: Forwarder
    runtime: Runtime
    devices: Devices
    networks: Networks
    bridges: Bridges
    images: ImageStore
    pools: Pools
    states: InstanceStates
    rendered: Rendered
    files: FileSessions
    consoles: Consoles
    guests: Guests
    membership: Membership
    gpus: GpuWatch = field(init=False)
    metrics: MetricsPort = field(init=False)
    device_watch: DeviceWatch = field(default_factory=DeviceWatch)
    current: bool = False  # whether the state is what the cluster has agreed on, and not an old one
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # the host is in line with the state
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # set: the daemon ends in order
    locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    in_use: Counter[str] = field(default_factory=Counter)  # users of files: see `using`
    going: set[str] = field(default_factory=set)  # ids of snapshots that are being removed
    let_go: dict[str, asyncio.Event] = field(default_factory=dict)  # of those that are waited for
    host_stops: bool = False  # whether instances are to be stopped before the daemon ends
    cut_off: set[str] = field(default_factory=set)  # keys of instances that ended with their host
    fenced: set[str] = field(default_factory=set)  # keys of those that are ended as this member is cut off
    arrivals: dict[str, Expected] = field(default_factory=dict)  # by operation: what others send here
    halting: set[str] = field(default_factory=set)  # volumes whose clean stop is waited for
    forced: dict[str, set[asyncio.Event]] = field(default_factory=dict)  # by volume: who cuts that short

    @property
    def member_id(self) -> str:
        return self.store.member_id

    @property
    def name(self) -> str:
        """This member's name; "none" when not clustered."""
        return name_of(self.store.state, self.member_id)

    @property
    def state(self) -> State:
        return self.store.state

    @property
    def clustered(self) -> bool:
        return is_clustered(self.store.state)

    def spawn(self, work: Coroutine[object, object, object], name: str) -> None:
        """Let `work` go on by itself; its failure is logged under `name` and harms nothing else."""
        task = self.tasks.create_task(guarded(work, name), name=name)
        task.add_done_callback(lambda _: work.close())  # it has not begun if all ends right now

    def forget_files(self, volume: str) -> None:
        """Remove the logs of an instance that is gone."""
        shutil.rmtree(self.runtime.paths(volume).logs, ignore_errors=True)

    def lock(self, name: str) -> asyncio.Lock:
        """The lock of that name ("instance default/c1"): what the owner does with its hands, one at a time.

        There for as long as somebody holds it or waits for it.
        """
        return self.locks.setdefault(name, asyncio.Lock())

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Note that files are in use meanwhile, be it by several. `name`: a snapshot's id, and the like; who
        removes such files looks at `in_use`.
        """
        self.in_use[name] += 1
        try:
            yield
        finally:
            self.in_use[name] -= 1
            if not self.in_use[name]:
                del self.in_use[name]
                if waiting := self.let_go.pop(name, None):
                    waiting.set()

    async def unused(self, name: str) -> None:
        """Until nobody uses those files. Who waits has seen to it that nobody begins to."""
        while self.in_use[name]:
            await self.let_go.setdefault(name, asyncio.Event()).wait()

    async def until(self, check: Callable[[State], bool], timeout: float | None) -> State:
        """The first state, from now on, of which `check` is true. Raises TimeoutError after `timeout`
        seconds; None: never. What `check` raises ends it.
        """
        found: asyncio.Future[State] = asyncio.get_running_loop().create_future()

        def look(applied: Applied) -> None:
            if found.done():
                return
            try:
                if check(applied.state):
                    found.set_result(applied.state)
            except Error as failure:  # it is this waiter's: others watch as well
                found.set_exception(failure)

        unwatch = self.store.watch(look)
        try:
            if check(self.store.state):
                return self.store.state
            async with asyncio.timeout(timeout):
                return await found
        finally:
            unwatch()
