"""What a member finds wrong with itself, and the leader with members that are silent."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from cluster.membership.heartbeat import Verdict
from cluster.membership.model import MEMBERS, Member
from lxdpy.host.lxc.limits import CgroupLayout
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.networks.model import NETWORKS, Network, NetworkMember
from lxdpy.resources.storage_pools.model import POOLS, Pool, PoolMember
from lxdpy.resources.warnings.commands import ResolveWarnings
from lxdpy.resources.warnings.conditions import KEEP_RESOLVED, SKEW, look
from lxdpy.resources.warnings.model import CERTIFICATE_FAILED, DHCP_ENDED, WARNINGS
from lxdpy.resources.warnings.raising import raise_warning
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon

WHOLE = CgroupLayout(
    unified=frozenset({"cpu", "cpuset", "io", "memory", "pids", "hugetlb", "freezer", "devices"}),
    memory_swap=True,
)


class Scene:
    """A member, and another of which nothing was heard for `silence` seconds."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore()
        self.store.put(MEMBERS, "other", Member("other", "n2", status="ready"))
        self.root = root
        self.silence = self.skew = 0.0
        self.down: list[Network] = []

    def daemon(self) -> Any:
        beat = SimpleNamespace(
            verdict=lambda id: Verdict(id == MEMBER_ID or not self.silence, self.silence),
            skew=lambda _: self.skew,
            online=lambda id: id == MEMBER_ID or not self.silence,
        )
        runtime = SimpleNamespace(cgroups=SimpleNamespace(layout=WHOLE))
        bridges = SimpleNamespace(down=lambda: self.down)
        return local_daemon(self.root, self.store, beat=beat, runtime=runtime, bridges=bridges)

    def look(self) -> set[tuple[str, str, str]]:
        """Type, location and entity of all that is not resolved, after a look."""
        asyncio.run(look_of(self))
        rows = self.store.state.rows(WARNINGS).values()
        return {(row.type, row.member, row.entity) for row in rows if row.status != "resolved"}


async def look_of(scene: Scene) -> None:
    await look(scene.daemon())


def test_what_is_so_is_told_once_and_ends_by_itself(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.look() == set()
    bad = PoolMember(status="Errored", error="no disk")
    scene.store.put(POOLS, "p", Pool("p", "dir", status="Created", members={MEMBER_ID: bad, "other": bad}))
    down = NetworkMember(status="Errored", error="no bridge")
    scene.store.put(NETWORKS, "blue/br0", Network("blue", "br0", members={MEMBER_ID: down}))
    scene.store.put(GPUS, "g1", GpuRow("g1", MEMBER_ID, "nvidia", "A", 1, health="failed", reason="XID 79"))
    scene.store.put(GPUS, "g2", GpuRow("g2", "other", "nvidia", "A", 1, health="failed"))
    scene.skew, scene.silence = -2 * SKEW, 21.0
    wanted = {
        ("Storage pool unavailable", MEMBER_ID, "/1.0/storage-pools/p"),
        ("Network unavailable", MEMBER_ID, "/1.0/networks/br0?project=blue"),
        ("GPU failed", MEMBER_ID, "/1.0/gpus/g1"),
        ("Time skew detected between leader and local", MEMBER_ID, ""),
        ("Offline cluster member", "other", "/1.0/cluster/members/n2"),
    }
    assert scene.look() == wanted
    index = scene.store.state.index
    assert scene.look() == wanted
    assert scene.store.state.index == index
    for table, key in ((POOLS, "p"), (NETWORKS, "blue/br0"), (GPUS, "g1")):
        scene.store.put(table, key, None)
    scene.skew = scene.silence = 0.0
    assert scene.look() == set()


def test_a_dhcp_server_is_down_until_its_network_serves_again(tmp_path: Path) -> None:
    scene, entity = Scene(tmp_path), "/1.0/networks/br0"

    async def ended() -> None:
        await raise_warning(scene.daemon(), DHCP_ENDED, "It is started again", entity=entity)

    asyncio.run(ended())
    scene.down = [Network("default", "br0"), Network("default", "being made")]
    assert scene.look() == {(DHCP_ENDED, MEMBER_ID, entity)}
    scene.down = []
    assert scene.look() == set()


def test_a_certificate_that_cannot_be_used_yet_is_told_of(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    row = scene.store.state.get(MEMBERS, MEMBER_ID)
    scene.store.put(MEMBERS, MEMBER_ID, msgspec.structs.replace(row, next_fingerprint="f"))
    assert scene.look() == set()
    scene.silence = 1.0
    assert scene.look() == {(CERTIFICATE_FAILED, MEMBER_ID, "")}
    scene.store.put(MEMBERS, MEMBER_ID, row)
    assert scene.look() == set()


def test_what_has_ended_is_forgotten_after_a_day(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.skew = 2 * SKEW
    scene.look()
    (key,) = scene.store.state.rows(WARNINGS)
    scene.skew, scene.store.now = 0.0, 1_000_000.0
    scene.store.run(ResolveWarnings((key,)))
    assert 1_000_000.0 + KEEP_RESOLVED < 1_700_000_000  # long ago
    scene.look()
    assert not scene.store.state.rows(WARNINGS)
