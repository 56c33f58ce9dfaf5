"""A member that takes instances, and what its containers do, without a kernel."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, cast

from lxdpy.daemon.beat import Beat
from lxdpy.daemon.context import Daemon
from lxdpy.daemon.instance_states import InstanceStates
from lxdpy.host.cgroups import Usage
from lxdpy.host.devices.driver import Attachment
from lxdpy.host.devices.gpu_physical import GpuPhysical
from lxdpy.host.devices.registry import devices
from lxdpy.host.lxc.runtime import STOPPED, ContainerState
from lxdpy.host.lxc.spec import Limits
from lxdpy.host.network.registry import fake_networks
from lxdpy.host.paths import HostRoot, InstancePaths
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.file_sessions import FileSessions
from lxdpy.resources.instances.model import IDMAPS, INSTANCES, IdmapSlot, Instance, Status
from lxdpy.resources.instances.rendered import Rendered
from lxdpy.resources.networks.actions import Bridges
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools.model import POOLS, Pool
from lxdpy.rest.route import Routes
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon, serving

ROOT = {"type": "disk", "path": "/", "pool": "default"}


class FakeRuntime:
    """Containers as they are said to be; what was looked at or asked for is noted."""

    def __init__(self, root: Path = Path("/nonexistent")) -> None:
        self.root = root
        self.states: dict[str, ContainerState] = {}
        self.looks: list[list[str]] = []
        self.processes = 1
        self.limits: dict[str, Limits] = {}

    def paths(self, name: str) -> InstancePaths:
        return InstancePaths(self.root, name)

    async def reattach(self, names: Iterable[str]) -> None:
        pass

    async def kill_container(self, name: str) -> None:
        self.states.pop(name, None)

    async def set_limits(self, name: str, limits: Limits) -> None:
        self.limits[name] = limits

    def state(self, name: str) -> ContainerState:
        return self.states.get(name, STOPPED)

    def monitor_pid(self, name: str) -> int:
        return 0  # LXC has no part in this

    def usage(self, name: str) -> Usage:
        return Usage(processes=self.processes)

    async def networks(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        self.looks.append(sorted(names))
        return {}


class FakeVolumes:
    """A pool's driver whose volumes are empty folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, volume: Volume) -> Path:
        return self.root / volume.name

    async def create(self, volume: Volume) -> None:
        self.path(volume).mkdir()

    async def delete(self, volume: Volume) -> None:
        if self.path(volume).exists():
            self.path(volume).rmdir()

    async def unmount(self, volume: Volume) -> None:
        pass

    async def rename(self, volume: Volume, name: str) -> None:
        if self.path(volume).exists():
            self.path(volume).rename(self.root / name)

    async def volumes(self) -> list[Volume]:
        return []


class FakePools:
    """Opens any pool, when its row is there."""

    def __init__(self, root: Path, store: LocalStore) -> None:
        self.root, self.store = root, store
        self.ensured: list[str] = []

    async def ensure(self, name: str) -> None:
        self.ensured.append(name)

    def opened(self) -> list[FakeVolumes]:
        return []

    def driver(self, name: str) -> FakeVolumes:
        self.store.state.get(POOLS, name)
        return FakeVolumes(self.root)


class FakeGuests:
    """Containers that are not there have no sockets."""

    async def open(self, *_: object) -> Attachment:
        return Attachment()

    async def close(self, *_: object) -> None: ...

    async def follow(self, *_: object) -> None: ...

    def changed(self, *_: object) -> None: ...

    def is_ready(self, *_: object) -> bool:
        return False


def ready_store() -> LocalStore:
    """With the default project and profile, and a pool."""
    store = LocalStore()
    store.run(CreateDefaults())
    store.put(POOLS, "default", Pool("default", "dir", status="Created"))
    return store


def instance(store: LocalStore, name: str, status: Status = "Stopped", **known: Any) -> Instance:
    """Past all commands; its profile is the default one, its own device a root disk."""
    row = Instance(**{
        "project": "default", "name": name, "uuid": f"uuid-{name}", "location": MEMBER_ID, "status": status,
        "profiles": ("default",), "devices": {"root": ROOT}, "idmap": len(store.state.rows(IDMAPS)), **known,
    })  # fmt: skip
    store.put(IDMAPS, str(row.idmap), IdmapSlot(row.key))
    store.put(INSTANCES, row.key, row)
    return row


def house(root: Path, store: LocalStore, tasks: asyncio.TaskGroup) -> Daemon:
    """What handlers of instances reach."""
    networks = fake_networks()
    daemon = local_daemon(
        root, store, tasks=tasks, networks=networks, beat=Beat(cast(Any, store)), rendered=Rendered(),
        devices=devices(networks.driver_for("bridge"), GpuPhysical(HostRoot(root), "host")),
        runtime=FakeRuntime(root), states=InstanceStates(), bridges=Bridges(),
        pools=FakePools(root, store), stopping=asyncio.Event(), files=FileSessions(), guests=FakeGuests(),
    )  # fmt: skip
    daemon.states.daemon = daemon.bridges.daemon = daemon
    return daemon


def with_client(
    root: Path, store: LocalStore, check: Callable[[Local], Awaitable[None]], *routes: Routes
) -> None:
    """Serve `routes`; what was started there has ended when this returns."""

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks, serving(house(root, store, tasks), *routes) as client:
            await check(client)

    asyncio.run(main())
