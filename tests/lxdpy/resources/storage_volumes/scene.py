"""A member of a cluster of two, with a `dir` pool that is open."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

from cluster.membership.model import MEMBERS
from lxdpy.resources.instances.commands import CreateInstance
from lxdpy.resources.instances.model import Instance
from lxdpy.resources.profiles.model import Devices
from lxdpy.resources.projects.commands import CreateProject
from lxdpy.resources.projects.model import Project
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools.actions import Pools
from lxdpy.resources.storage_pools.model import POOLS, Pool, PoolMember
from lxdpy.resources.storage_volumes.commands import CreateVolume, FinishVolume
from lxdpy.resources.storage_volumes.handlers import routes
from lxdpy.resources.storage_volumes.model import StorageVolume
from lxdpy.resources.volume_backups.handlers import routes as backups
from lxdpy.resources.volume_snapshots.handlers import routes as snapshots
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon, serving
from tests.lxdpy.resources.cluster.scene import clustered

LIST = "/1.0/storage-pools/p1/volumes/custom"
ROOT = {"root": {"type": "disk", "path": "/", "pool": "p1"}}


def disk(name: str) -> Devices:
    return {"d": {"type": "disk", "pool": "p1", "source": name, "path": "/data"}}


def alone() -> LocalStore:
    """A server of its own."""
    store = LocalStore()
    store.run(CreateDefaults())
    return furnished(store)


def scene() -> LocalStore:
    """A cluster of two."""
    return furnished(clustered())


def furnished(store: LocalStore) -> LocalStore:
    """With a project `own` that has volumes of its own, and one `guest` that has not."""
    for name, config in (("own", {"features.storage.volumes": "true"}), ("guest", {})):
        store.run(CreateProject(Project(name, config=config)))
    for pool in ("p1", "p2"):
        parts = {member: PoolMember(status="Created") for member in store.state.rows(MEMBERS)}
        store.put(POOLS, pool, Pool(pool, "dir", status="Created", members=parts))
    return store


def add(store: LocalStore, name: str, member: str = MEMBER_ID, project: str = "default") -> str:
    """Its id."""
    id = uuid4().hex
    store.run(CreateVolume(StorageVolume(id, "p1", project, name, member)))
    store.run(FinishVolume(id))
    return id


def instance(store: LocalStore, name: str, devices: Devices, project: str = "default") -> None:
    row = Instance(project, name, name, MEMBER_ID, devices=ROOT | devices, pool="p1", status="Stopped")
    store.run(CreateInstance(row))


def with_client(root: Path, store: LocalStore, check: Callable[[Local], Awaitable[None]]) -> None:
    async def main() -> None:
        pools = Pools()
        pools.daemon = local_daemon(root, store, pools=pools, runtime=SimpleNamespace(mounts=None))
        async with asyncio.TaskGroup() as tasks:
            daemon = pools.daemon = local_daemon(
                root, store, pools=pools, runtime=SimpleNamespace(mounts=None), tasks=tasks
            )
            for pool in ("p1", "p2"):
                await pools.ensure(pool)
            async with serving(daemon, routes, snapshots, backups) as client:
                await check(client)

    asyncio.run(main())
