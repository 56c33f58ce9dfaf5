"""What a member does of what it applied: when it knows that the state is no old one, and only of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from cluster import failpoints
from cluster.errors import Error, Unavailable
from cluster.membership.identity import Identity
from lxdpy.daemon.context import Daemon
from lxdpy.daemon.reconcile import Reconciler
from lxdpy.host.gpu.inventory import Gpu, Node
from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.host.lxc.spec import Limits
from lxdpy.host.network.driver import Network as HostNetwork
from lxdpy.resources.images.model import IMAGES, Image
from lxdpy.resources.instances import given as records
from lxdpy.resources.instances import settle, teardown
from lxdpy.resources.instances.commands import LAST_POWER
from lxdpy.resources.instances.given import Given
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.profiles.model import PROFILES, Profile
from tests.lxdpy.fakes import LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER
from tests.lxdpy.resources.instances.scene import FakeRuntime, house, instance, ready_store

OPERATION = "00000000-0000-4000-8000-0123456789ab"
RUNS = ContainerState("Running", 7)


class Files:
    """Images on disk."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def fingerprints(self) -> list[str]:
        return sorted(self.names)

    def remove(self, fingerprint: str) -> None:
        self.names.discard(fingerprint)


class Host(NamedTuple):
    daemon: Daemon
    store: LocalStore
    runtime: FakeRuntime
    images: Files
    reconciler: Reconciler

    async def quiet(self) -> None:
        """Until all that was begun has ended."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def sweep(self) -> None:
        await self.reconciler.sweep()
        await self.quiet()

    def status(self, key: str) -> str:
        row = self.store.state.find(INSTANCES, key)
        return row.status if row else "gone"

    def running(self, name: str, **known: Any) -> Instance:
        """An instance with a container."""
        self.runtime.states[name] = RUNS
        return instance(self.store, name, "Running", **known)

    def limit_by_profile(self, memory: str) -> None:
        profile = Profile("default", "default", config={"limits.memory": memory})
        self.store.put(PROFILES, profile.key, profile)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxdpy.daemon.instance_states.AFTER_CHANGE", (0.0,))


def on_host(root: Path, story: Callable[[Host], Awaitable[None]]) -> None:
    async def refresh() -> None:
        return

    async def main() -> None:
        (root / "run").mkdir()
        store = ready_store()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            daemon = house(root, store, tasks)
            daemon.images = cast(Any, images := Files())
            daemon.membership = cast(Any, SimpleNamespace(refresh=refresh, identity=Identity("c1", "m1")))
            daemon.metrics = cast(Any, SimpleNamespace(follow=refresh))
            runtime = cast(FakeRuntime, daemon.runtime)
            await story(Host(daemon, store, runtime, images, Reconciler(daemon)))

    asyncio.run(main())


def test_a_container_that_ended_while_the_daemon_was_down_is_told(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        host.running("lives")
        ended = instance(host.store, "ended", "Running")
        elsewhere = instance(host.store, "elsewhere", "Running", location=OTHER)
        spent = instance(host.store, "spent", "Running", ephemeral=True, last_used_at=1.0)
        rests = instance(host.store, "rests", ephemeral=True, last_used_at=1.0)  # it was not when it ran
        await records.save(host.daemon, rests, Given(({}, {}), ({}, {})))  # of a start that failed
        await host.sweep()
        keys = ["default/lives", ended.key, elsewhere.key, spent.key, rests.key]
        assert [host.status(key) for key in keys] == ["Running", "Stopped", "Running", "gone", "Stopped"]

    on_host(tmp_path, story)


def test_an_ephemeral_one_goes_though_a_crash_came_when_its_end_was_told(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        row = instance(host.store, "c1", "Running", ephemeral=True)
        with failpoints.inject("instance.taken-down", Error("died"), visit=2), pytest.raises(Error):
            await teardown.ended(host.daemon, row.key)
        assert host.status(row.key) == "Stopped"
        await host.sweep()
        assert host.status(row.key) == "gone"

    on_host(tmp_path, story)


def test_a_container_that_nobody_knows_to_run_is_told(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        row = instance(host.store, "c1")
        host.runtime.states["c1"] = ContainerState("Frozen", 7)
        await host.sweep()
        assert host.status(row.key) == "Frozen"

    on_host(tmp_path, story)


def test_what_was_cut_short_is_built_and_deleted_to_the_end(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        new = instance(host.store, "new", "Creating", operation=OPERATION)
        dying = instance(host.store, "dying")
        for left in ("new", "dying"):
            (tmp_path / left).mkdir()
        (tmp_path / "run/dying.deleted").write_text(dying.uuid)
        await host.sweep()
        assert (host.status(new.key), host.status(dying.key)) == ("Stopped", "gone")
        assert ((tmp_path / "new").exists(), (tmp_path / "dying").exists()) == (True, False)

    on_host(tmp_path, story)


def test_an_old_entry_starts_nothing(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        host.daemon.current = False
        row = instance(host.store, "c1", "Creating", operation=OPERATION)
        host.reconciler.event("c1", "stopped")
        await host.quiet()
        assert host.daemon.operations.find(OPERATION) is None
        host.daemon.current = True
        host.store.put(INSTANCES, row.key, None)
        instance(host.store, "c1", "Creating", operation=OPERATION)
        await host.quiet()
        assert host.status(row.key) == "Stopped"
        assert host.daemon.operations.find(OPERATION) is not None

    on_host(tmp_path, story)


def test_one_in_the_place_of_another_is_built(tmp_path: Path) -> None:
    """Of what was between, a member that got a snapshot of the state does not hear."""

    async def story(host: Host) -> None:
        row = instance(host.store, "c1")
        instance(host.store, "c1", "Creating", uuid="another", operation=OPERATION)
        await host.quiet()
        assert host.status(row.key) == "Stopped"

    on_host(tmp_path, story)


def test_what_others_own_is_theirs_to_build(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        row = instance(host.store, "c1", "Creating", operation=OPERATION, location=OTHER)
        await host.sweep()
        assert (host.status(row.key), host.daemon.operations.find(OPERATION)) == ("Creating", None)

    on_host(tmp_path, story)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        row = instance(host.store, "c1", "Creating", operation=OPERATION, pool="gone")
        await host.sweep()
        assert host.status(row.key) == "gone"
        operation = host.daemon.operations.find(OPERATION)
        assert operation is not None
        assert "gone" in operation.err

    on_host(tmp_path, story)


def test_a_profile_is_followed_at_once_by_those_that_run_here(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        host.running("c1")
        host.running("other", profiles=())
        instance(host.store, "stopped")
        instance(host.store, "elsewhere", "Running", location=OTHER)
        await host.sweep()
        host.limit_by_profile("1GiB")
        await host.quiet()
        assert {name: limits.memory for name, limits in host.runtime.limits.items()} == {"c1": 1 << 30}
        host.limit_by_profile("2GiB")
        await host.quiet()
        assert host.runtime.limits["c1"].memory == 2 << 30

    on_host(tmp_path, story)


def test_a_profile_that_changed_while_the_daemon_was_down_is_followed(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        host.running("c1")
        await host.sweep()
        host.limit_by_profile("1GiB")
        await host.quiet()
        host.runtime.limits.clear()
        host.daemon.current = False
        row = host.store.state.get(PROFILES, "default/default")
        rows = {"default/default": msgspec.structs.replace(row, config={"limits.memory": "3GiB"})}
        host.store.machine.state.tables["profiles"] = rows  # type: ignore[index]
        await host.sweep()
        assert host.runtime.limits["c1"].memory == 3 << 30

    on_host(tmp_path, story)


def test_what_has_rebooted_and_followed_its_profile_is_not_taken_to_have_rebooted_again(
    tmp_path: Path,
) -> None:
    async def story(host: Host) -> None:
        row = host.running("c1")
        await host.sweep()
        host.store.now += 60
        rebooted = host.runtime.states["c1"] = ContainerState("Running", 8)
        profile = Profile("default", "default", config={"user.colour": "red"})
        host.store.put(PROFILES, profile.key, profile)
        await host.quiet()
        given = await records.load(host.daemon, row)
        assert given is not None
        assert (given.init, given.now[0]["user.colour"]) == (8, "red")
        assert host.store.state.get(INSTANCES, row.key).last_used_at == host.store.now, (
            "it is told as a restart"
        )
        host.limit_by_profile("1GiB")  # which would be another container than the one it was started as
        await host.quiet()
        assert host.runtime.states["c1"] is rebooted, "it was ended, and started anew"
        assert host.runtime.limits["c1"].memory == 1 << 30

    on_host(tmp_path, story)


def test_who_cannot_follow_for_want_of_a_leader_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(host: Host) -> None:
        row = host.running("c1")
        await host.sweep()

        async def refuse(name: str, limits: Limits) -> None:
            raise Unavailable("No leader")

        with monkeypatch.context() as lonely:
            lonely.setattr(host.runtime, "set_limits", refuse)
            host.limit_by_profile("1GiB")
            await host.quiet()  # with a leader it is taken for what its next start mends
            lonely.setattr(LocalStore, "leader", property(lambda _: None))
            with pytest.raises(Unavailable):
                await settle.settle(host.daemon, row.key)
        await settle.settle(host.daemon, row.key)
        assert host.runtime.limits["c1"].memory == 1 << 30

    on_host(tmp_path, story)


def test_what_was_ended_as_its_member_was_cut_off_is_to_run_again_whoever_wrote_its_record(
    tmp_path: Path,
) -> None:
    async def story(host: Host) -> None:
        row = host.running("c1", config={"boot.autostart": "false"})  # so that nobody tries here
        await host.sweep()
        host.daemon.fenced.add(row.key)
        given = await records.load(host.daemon, row)
        assert given is not None
        await records.save(host.daemon, row, given)  # as what cannot be told of is taken back
        del host.runtime.states["c1"]
        host.reconciler.event("c1", "stopped")
        await host.quiet()
        after = host.store.state.get(INSTANCES, row.key)
        assert (after.status, after.config[LAST_POWER]) == ("Stopped", "RUNNING")
        assert host.daemon.fenced == set()

    on_host(tmp_path, story)


def test_who_has_gpus_is_looked_at_when_they_are_first_seen_and_have_other_files_though_it_only_starts(
    tmp_path: Path,
) -> None:
    async def story(host: Host) -> None:
        card = Gpu(
            uuid="GPU-1", vendor="nvidia", model="", memory=1, driver="", driver_version="",
            pci_address="0000:07:00.0", vendor_id="", product_id="",
        )  # fmt: skip
        again = msgspec.structs.replace(card, nodes=(Node("/dev/nvidia1", 195, 1, "/dev/nvidia1"),))
        for number, seen in enumerate((card, again)):
            name = f"c{number}"
            row = instance(host.store, name, config={"volatile.gpu.gpu.uuids": "GPU-1"})
            host.runtime.states[name] = RUNS
            host.reconciler.cards_seen([seen])
            await host.quiet()
            assert host.status(row.key) == "Running"
        late = instance(host.store, "late", config={"volatile.gpu.gpu.uuids": "GPU-1"})
        host.runtime.states["late"] = RUNS
        host.reconciler.cards_seen([again])
        await host.quiet()
        assert host.status(late.key) == "Stopped", "nothing has changed"

    on_host(tmp_path, story)


def test_a_container_that_ends_is_told_once_somebody_listens(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        row = host.running("c1")
        await host.sweep()
        del host.runtime.states["c1"]
        host.reconciler.event("nobody's", "stopped")
        host.reconciler.event("c1", "started")
        await host.quiet()
        assert host.status(row.key) == "Running"
        host.reconciler.event("c1", "stopped")
        await host.quiet()
        assert host.status(row.key) == "Stopped"

    on_host(tmp_path, story)


class Unpacked:
    """A pool with images."""

    def __init__(self, *images: str) -> None:
        self.left = set(images)

    async def images(self) -> list[str]:
        return sorted(self.left)

    async def delete_image(self, fingerprint: str) -> None:
        self.left.discard(fingerprint)


def test_images_that_went_while_their_pool_was_not_open_go_from_it_when_it_is(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        pool = Unpacked("a" * 64, "b" * 64)
        host.store.put(IMAGES, f"default/{'a' * 64}", Image("default", "a" * 64))
        host.daemon.pools.opened = lambda: [pool]  # type: ignore[method-assign,list-item]
        await host.sweep()
        assert pool.left == {"a" * 64}

    on_host(tmp_path, story)


def test_images_go_with_their_last_row(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        host.images.names = {"a" * 64, "b" * 64, "c" * 64}
        for project, fingerprint in (("default", "a" * 64), ("lab", "a" * 64), ("default", "b" * 64)):
            image = Image(project, fingerprint)
            host.store.put(IMAGES, image.key, image)
        await host.sweep()
        assert host.images.names == {"a" * 64, "b" * 64}
        for fingerprint in ("a" * 64, "b" * 64):
            host.store.put(IMAGES, f"default/{fingerprint}", None)
        await host.quiet()
        assert host.images.names == {"a" * 64}, "another project has it"

    on_host(tmp_path, story)


def test_networks_that_went_meanwhile_are_removed_at_the_start(tmp_path: Path) -> None:
    async def story(host: Host) -> None:
        driver = host.daemon.networks.driver_for("bridge")
        await driver.ensure(HostNetwork(name="br0"))
        host.daemon.current = False
        await host.sweep()
        assert driver.made() == ()

    on_host(tmp_path, story)
