"""The lease of a member: renewed, run out, and what is ended then."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.errors import Unavailable
from cluster.state.command import Command
from cluster.state.txn import State
from lxdpy.daemon.fence import DRIFT, RENEWALS, UNUSED, Fence, surely_over
from lxdpy.resources.cluster.commands import LeaveMember
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.server.commands import ConfigureServer
from lxdpy.resources.warnings.model import FENCED, WARNINGS
from tests.lxdpy.fakes import MEMBER_ID, LocalStore, local_daemon
from tests.lxdpy.resources.cluster.scene import clustered
from tests.lxdpy.resources.gpus.scene import add, created, gpu

LEASE = 60.0


class Raft(LocalStore):
    """Asking the leader takes as long as one is ready to wait if the member is cut off, and no time else."""

    def __init__(self, scene: "Scene") -> None:
        super().__init__()
        self.machine = clustered().machine
        self.scene = scene
        self.cut = False
        self.slow = False  # nothing that is proposed is done

    async def read_index(self, timeout: float = 5.0) -> State:
        if self.cut:
            self.scene.now += timeout
            raise Unavailable("No leader answered in time")
        return self.state

    async def propose(self, command: Command, *, request_id: str = "", timeout: float = 10.0) -> State:
        if self.slow:
            await asyncio.sleep(3600)
        return await super().propose(command, request_id=request_id, timeout=timeout)


class Containers:
    """Those that run."""

    def __init__(self, *names: str) -> None:
        self.running = set(names)

    def state(self, volume: str) -> Any:
        return SimpleNamespace(status="Running" if volume in self.running else "Stopped")

    async def kill_container(self, volume: str) -> None:
        self.running.discard(volume)


class Scene:
    """c1 runs here with a GPU, c2 here without, c3 with one elsewhere."""

    def __init__(self, root: Path, lease: str = "60") -> None:
        self.now = 1000.0
        self.raft, self.containers = Raft(self), Containers("c1", "c2")
        self.raft.run(ConfigureServer({"gpu.fence_after": lease} if lease else {}))
        add(self.raft, gpu("GPU-1"), gpu("GPU-2", "ba9876543210"))
        created(self.raft, "c1", "GPU-1", status="Running", started=True)
        created(self.raft, "c3", "GPU-2", status="Running", started=True, location="ba9876543210")
        row = Instance("default", "c2", "c2", MEMBER_ID, status="Running")
        self.raft.put(INSTANCES, row.key, row)
        self.daemon = local_daemon(root, self.raft, runtime=self.containers)
        self.fence = Fence(self.daemon, lambda: self.now)

    async def go_on(self, seconds: float) -> None:
        """So long, and until the next step has been made."""
        end = self.now + seconds
        while self.now < end:
            pause = await self.fence.step()
            self.now += min(pause, max(0.0, end - self.now))


def test_who_is_cut_off_ends_what_has_gpus_within_the_lease_and_the_leader_waits_for_longer(
    tmp_path: Path,
) -> None:
    async def check() -> None:
        scene = Scene(tmp_path)
        await scene.go_on(10 * LEASE)
        assert scene.containers.running == {"c1", "c2"}
        heard, scene.raft.cut = scene.now, True
        await scene.go_on(LEASE * (1 - 2 / RENEWALS))
        assert scene.containers.running == {"c1", "c2"}, "not before it must"
        while "c1" in scene.containers.running:
            scene.now += await scene.fence.step()
        assert scene.now - heard <= LEASE * (1 + DRIFT) < surely_over(LEASE)
        assert scene.containers.running == {"c2"}
        assert not scene.raft.state.rows(WARNINGS)
        scene.containers.running.add("c1")  # it rebooted at that moment, say
        await scene.go_on(LEASE)
        assert scene.containers.running == {"c2"}

    asyncio.run(check())


def test_who_is_back_in_time_ends_nothing_and_who_is_back_late_says_what_it_ended(tmp_path: Path) -> None:
    async def check() -> None:
        scene = Scene(tmp_path)
        for _ in range(5):
            scene.raft.cut = True
            await scene.go_on(LEASE / 2)
            scene.raft.cut = False
            await scene.fence.step()
        assert scene.containers.running == {"c1", "c2"}
        scene.raft.cut = True
        await scene.go_on(2 * LEASE)
        scene.raft.cut = False
        await scene.fence.step()
        [warning] = scene.raft.state.rows(WARNINGS).values()
        assert (warning.type, warning.entity) == (FENCED, "/1.0/instances/c1")
        await scene.go_on(2 * LEASE)
        assert len(scene.raft.state.rows(WARNINGS)) == warning.count == 1

    asyncio.run(check())


def test_what_was_ended_as_it_was_cut_off_is_marked_to_run_again_and_what_is_removed_is_not(
    tmp_path: Path,
) -> None:
    async def fenced(how: str) -> bool:
        scene = Scene(tmp_path)
        (tmp_path / "run").mkdir(exist_ok=True)
        row = scene.raft.state.get(INSTANCES, "default/c1")
        await records.save(scene.daemon, row, Given(({}, {}), ({}, {})))
        if how == "removed":
            scene.raft.run(LeaveMember(MEMBER_ID, forced=True))
        scene.raft.cut = True
        await scene.go_on(2 * LEASE)
        assert scene.containers.running == {"c2"}
        given = await records.load(scene.daemon, row)
        return given is not None and given.fenced

    assert asyncio.run(fenced("cut off"))
    assert not asyncio.run(fenced("removed"))


def test_what_has_gpus_is_ended_though_nothing_can_be_written_and_is_known_to_run_again(
    tmp_path: Path,
) -> None:
    async def check() -> None:
        scene = Scene(tmp_path)
        (tmp_path / "run").touch()  # no folder
        scene.raft.cut = True
        await scene.go_on(2 * LEASE)
        assert (scene.containers.running, scene.daemon.fenced) == ({"c2"}, {"default/c1"})

    asyncio.run(check())


def test_telling_what_was_ended_takes_no_longer_than_the_lease_allows(tmp_path: Path) -> None:
    """Else what runs again by then would be ended once more."""

    async def check() -> None:
        scene = Scene(tmp_path, lease="0.2")
        scene.raft.cut = True
        await scene.go_on(1)
        scene.raft.cut, scene.raft.slow = False, True
        async with asyncio.timeout(20):
            await scene.fence.step()
        assert not scene.raft.state.rows(WARNINGS)
        scene.raft.slow = False
        await scene.fence.step()
        assert len(scene.raft.state.rows(WARNINGS)) == 1

    asyncio.run(check())


def test_without_a_lease_nothing_is_ended_and_one_that_is_set_begins_then(tmp_path: Path) -> None:
    async def check() -> None:
        scene = Scene(tmp_path, lease="")
        scene.raft.cut = True
        assert await scene.fence.step() == UNUSED
        await scene.go_on(100 * LEASE)
        scene.raft.run(ConfigureServer({"gpu.fence_after": "60"}))
        await scene.fence.step()
        assert scene.containers.running == {"c1", "c2"}

    asyncio.run(check())


def test_who_hears_that_it_is_being_removed_ends_what_has_gpus_at_once(tmp_path: Path) -> None:
    async def check() -> None:
        scene = Scene(tmp_path)
        scene.raft.run(LeaveMember(MEMBER_ID, forced=True))
        await scene.fence.step()
        assert scene.containers.running == {"c2"}

    asyncio.run(check())
