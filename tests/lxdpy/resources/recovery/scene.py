"""An instance and a volume with all that they have, lost with their database."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lxdpy.daemon.records import Records
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.host.paths import InstancePaths
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.profiles.commands import CreateProfile
from lxdpy.resources.profiles.model import Profile
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot
from lxdpy.resources.storage_pools.actions import Pools
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume, VolumeSnapshot
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.resources.storage_volumes.scene import ROOT, alone, disk

WEB = Instance(
    "own",
    "web",
    "u-web",
    MEMBER_ID,
    description="d",
    config={
        "limits.memory": "1GiB",
        "limits.gpu": "1",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:01",
        "volatile.uuid": "u-web",
        "user.number": "007",
    },
    devices=ROOT | disk("data"),
    profiles=("fast",),
    created_at=1000.5,
    last_used_at=2000.0,
    pool="p1",
    status="Stopped",
)
SNAP = Snapshot(
    "own", "web", "s0", "id-of-s0", "Ready", created_at=1500.0, devices=ROOT, config={"user.a": "b"}
)
DATA = StorageVolume(
    "id-of-data",
    "p1",
    "own",
    "data",
    MEMBER_ID,
    config={"size": "1GiB"},
    status="Ready",
    created_at=900.0,
    snapshots=(VolumeSnapshot("id-of-v0", "v0", "Ready", created_at=950.0),),
)


def furnished() -> LocalStore:
    """With all that WEB needs."""
    store = alone()
    store.run(CreateProfile(Profile("default", "fast", config={"user.fast": "yes"})))
    return store


class Server:
    """A member with a pool of plain folders. `runs`: names of containers that are alive."""

    def __init__(self, root: Path, store: LocalStore) -> None:
        self.runs: set[str] = set()
        self.store = store
        pools = Pools()
        runtime = SimpleNamespace(
            mounts=None, reattach=self._reattach, paths=lambda name: InstancePaths(root, name)
        )
        self.daemon = pools.daemon = local_daemon(
            root, store, pools=pools, runtime=cast(Any, runtime), tasks=cast(Any, None)
        )
        self.daemon.spawn = lambda work, name: work.close()  # type: ignore[method-assign]

    async def _reattach(self, names: list[str]) -> dict[str, ContainerState]:
        return {name: ContainerState("Running", 4711 if name in self.runs else 0) for name in names}

    async def open(self) -> "Server":
        for pool in self.store.state.rows(POOLS):
            await self.daemon.pools.ensure(pool)
        return self

    async def write(self) -> None:
        """All records, as a daemon does it after a start."""
        kept = Records(self.daemon)
        kept.all()
        await kept.flush()

    def folder(self, name: str, snapshot: str = "", kind: Any = "container") -> Path:
        return self.daemon.pools.driver("p1").path(Volume(name, kind, snapshot))

    async def furnish(self) -> None:
        """WEB, its volume and their snapshots, registered and on disk."""
        store, driver = self.store, self.daemon.pools.driver("p1")
        store.put(VOLUMES, DATA.id, DATA)
        store.put(INSTANCES, WEB.key, WEB)
        store.put(SNAPSHOTS, SNAP.key, SNAP)
        for volume in (Volume("own_web"), Volume(DATA.id, "custom")):
            await driver.create(volume)
        await driver.snapshot(Volume("own_web", snapshot=SNAP.id))
        await driver.snapshot(Volume(DATA.id, "custom", "id-of-v0"))
        await self.write()


async def lost(root: Path) -> Server:
    """A new database over the pool that another one has filled."""
    await (await Server(root, furnished()).open()).furnish()
    return await Server(root, furnished()).open()
