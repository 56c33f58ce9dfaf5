import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cluster.errors import NotFound
from lxdpy.daemon.context import Daemon
from lxdpy.resources.instances.devices import start
from lxdpy.resources.instances.hotplug import plug
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.lifecycle import Lifecycle, all_events
from lxdpy.resources.storage_pools.commands import users
from lxdpy.resources.storage_volumes.actions import on_disk
from lxdpy.resources.storage_volumes.model import VOLUMES
from lxdpy.resources.volume_snapshots import actions
from lxdpy.resources.volume_snapshots.commands import CreateVolumeSnapshot
from lxdpy.resources.volume_snapshots.schedule import expire
from tests.lxdpy.fakes import Local, LocalStore
from tests.lxdpy.resources.storage_volumes.scene import LIST, add, alone, disk, instance, with_client
from tests.lxdpy.resources.storage_volumes.test_handlers import done, folder

ONE = f"{LIST}/v1/snapshots"


def running(store: LocalStore) -> None:
    if store.state.find(INSTANCES, "default/c1") is None:
        instance(store, "c1", disk("v1"))
    row = store.state.get(INSTANCES, "default/c1")
    store.put(INSTANCES, row.key, msgspec.structs.replace(row, status="Running"))


def test_a_volume_goes_back_to_a_snapshot_and_the_events_tell(tmp_path: Path) -> None:
    store = alone()
    heard: list[Lifecycle] = []
    store.watch(lambda applied: heard.extend(all_events(applied.changes)))

    async def check(client: Local) -> None:
        await client.ask(
            "POST", LIST, {"name": "v1", "description": "d", "config": {"snapshots.expiry": "1d"}}
        )
        file = folder(tmp_path, store, "v1") / "file"
        file.write_text("then")
        assert await done(client, "POST", ONE, {}) == ""
        file.write_text("now")
        (shown,) = (await client.ask("GET", f"{ONE}?recursion=1"))["metadata"]
        assert (shown["name"], shown["description"], shown["content_type"]) == ("v1/snap0", "d", "filesystem")
        assert shown["expires_at"] > shown["created_at"]
        assert await done(client, "POST", f"{ONE}/snap0", {"name": "kept"}) == ""
        body = {"description": "of then", "expires_at": None}
        assert (await client.ask("PUT", f"{ONE}/kept", body))["status_code"] == 200
        shown = (await client.ask("GET", f"{ONE}/kept"))["metadata"]
        said = ("kept", "of then", "0001-01-01T00:00:00Z")
        assert (shown["name"], shown["description"], shown["expires_at"]) == said
        assert (await client.ask("PUT", f"{LIST}/v1", {"restore": "kept"}))["status_code"] == 200
        assert (folder(tmp_path, store, "v1") / "file").read_text() == "then"
        assert (await client.ask("GET", f"{LIST}/v1"))["metadata"]["config"] == {"snapshots.expiry": "1d"}
        names = [row["name"] for row in (await client.ask("GET", f"{LIST}?recursion=1"))["metadata"]]
        assert names == ["v1", "v1/kept"]
        assert (await client.ask("GET", LIST))["metadata"] == [f"{LIST}/v1", f"{ONE}/kept"]
        assert users(store.state, "p1") == [f"{LIST}/v1", f"{ONE}/kept"]
        assert await done(client, "DELETE", f"{ONE}/kept", None) == ""
        assert (await client.ask("GET", ONE))["metadata"] == []
        assert (await client.ask("DELETE", f"{LIST}/v1"))["status_code"] == 200

    with_client(tmp_path, store, check)
    assert [event.action for event in heard if event.action.startswith("storage-volume")] == [
        "storage-volume-created",
        "storage-volume-snapshot-created",
        "storage-volume-snapshot-renamed",
        "storage-volume-snapshot-updated",
        "storage-volume-restored",
        "storage-volume-snapshot-deleted",
        "storage-volume-deleted",
    ]
    assert [event.context for event in heard if event.action.endswith("-created")] == [{"type": "custom"}] * 2
    assert not list((tmp_path / "storage-pools" / "p1").glob("custom*/*"))


def test_a_copy_has_the_snapshots_unless_only_the_volume_is_asked_for(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1"})
        file = folder(tmp_path, store, "v1") / "file"
        file.write_text("then")
        assert await done(client, "POST", ONE, {"name": "s"}) == ""
        file.write_text("now")
        source = {"type": "copy", "name": "v1", "pool": "p1"}
        for pool, name, given in (
            ("p1", "whole", source),
            ("p2", "whole", source),
            ("p2", "alone", source | {"volume_only": True}),
            ("p2", "part", source | {"name": "v1/s"}),
        ):
            there = LIST.replace("p1", pool)
            assert await done(client, "POST", there, {"name": name, "source": given}) == ""
            names = [
                row["name"]
                for row in (await client.ask("GET", f"{there}/{name}/snapshots?recursion=1"))["metadata"]
            ]
            assert names == (["whole/s"] if name == "whole" else [])
            text = (folder(tmp_path, store, name, pool) / "file").read_text()
            assert text == ("then" if name == "part" else "now")
        there = LIST.replace("p1", "p2")
        assert (await client.ask("PUT", f"{there}/whole", {"restore": "s"}))["status_code"] == 200
        assert (folder(tmp_path, store, "whole", "p2") / "file").read_text() == "then"

    with_client(tmp_path, store, check)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", f"{LIST}/none/snapshots", {"name": "s"}, 404, "Storage pool volume not found"),
        ("POST", ONE, {"name": "a/b"}, 400,
         "Invalid storage volume snapshot name: Cannot contain space or / characters"),
        ("POST", ONE, {"name": "there"}, 409, 'Snapshot "v1/there" already exists'),
        ("POST", ONE, {"name": "s", "expires_at": "soon"}, 400, "Not a date: soon"),
        ("POST", f"{ONE}/there", {"name": "there"}, 409, 'Snapshot "v1/there" already exists'),
        ("GET", f"{ONE}/none", None, 404, "Storage volume snapshot not found"),
        ("DELETE", f"{ONE}/none", None, 404, "Storage volume snapshot not found"),
        ("PUT", f"{LIST}/v1", {"restore": "none"}, 404, "Storage volume snapshot not found"),
        ("PUT", f"{LIST}/v1", {"restore": "there"}, 400,
         "Cannot restore custom volume used by running instances"),
        ("POST", LIST, {"name": "x", "source": {"type": "copy", "name": "v1/none"}}, 404,
         "Storage volume snapshot not found"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, method: str, path: str, body: dict[str, Any] | None, status: int, said: str
) -> None:
    store = alone()
    add(store, "v1")
    running(store)

    async def check(client: Local) -> None:
        folder(tmp_path, store, "v1").mkdir(parents=True)
        assert await done(client, "POST", ONE, {"name": "there"}) == ""
        answer = await client.ask(method, path, body)
        assert (answer["error_code"], answer["error"]) == (status, said)

    with_client(tmp_path, store, check)


def test_a_copy_is_refreshed_to_what_its_source_has_become(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1"})
        file = folder(tmp_path, store, "v1") / "file"
        for name in ("a", "b"):
            file.write_text(name)
            assert await done(client, "POST", ONE, {"name": name}) == ""
        there = LIST.replace("p1", "p2")
        body = {"name": "v2", "source": {"type": "copy", "name": "v1", "pool": "p1", "refresh": True}}
        assert await done(client, "POST", there, body) == ""  # there is none yet
        await done(client, "DELETE", f"{ONE}/a", None)
        assert await done(client, "POST", f"{there}/v2/snapshots", {"name": "own"}) == ""
        for name in ("c", "now"):
            file.write_text(name)
            if name == "c":
                assert await done(client, "POST", ONE, {"name": name}) == ""
        assert await done(client, "POST", there, body) == ""
        shown = (await client.ask("GET", f"{there}/v2/snapshots?recursion=1"))["metadata"]
        assert [row["name"] for row in shown] == ["v2/b", "v2/c"]
        copied = folder(tmp_path, store, "v2", "p2")
        assert (copied / "file").read_text() == "now"
        assert (await client.ask("PUT", f"{there}/v2", {"restore": "c"}))["status_code"] == 200
        assert (copied / "file").read_text() == "c"

    with_client(tmp_path, store, check)


def test_a_start_that_is_going_on_is_waited_for_before_a_restore(tmp_path: Path) -> None:
    store = alone()
    add(store, "v1")
    instance(store, "c1", disk("v1"))

    async def check(client: Local) -> None:
        folder(tmp_path, store, "v1").mkdir(parents=True)
        assert await done(client, "POST", ONE, {"name": "s"}) == ""
        async with asyncio.TaskGroup() as tasks, client.api.daemon.lock("instance default/c1"):
            restoring = tasks.create_task(client.ask("PUT", f"{LIST}/v1", {"restore": "s"}))
            await client.ask("GET", f"{LIST}/v1")
            running(store)
        said = restoring.result()["error"]
        assert said == "Cannot restore custom volume used by running instances"

    with_client(tmp_path, store, check)


@pytest.mark.parametrize("runs", [True, False])
def test_a_volume_given_to_an_instance_during_a_restore_is_given_afterwards(
    tmp_path: Path, *, runs: bool
) -> None:
    store = alone()
    volume = add(store, "v1")
    waits = asyncio.Event()
    happened: list[str] = []

    def driver_for(options: object, network: str) -> object:
        """Whoever asks for the driver of a disk is about to start it."""
        happened.append("given")
        raise NotFound("This is far enough")

    async def give(daemon: Daemon) -> None:
        """As its owner does it, with a volume that it has come to have just now."""
        async with daemon.lock("instance default/c1"):
            instance(store, "c1", disk("v1"))
            waits.set()
            row, device = store.state.get(INSTANCES, "default/c1"), disk("v1")
            with pytest.raises(NotFound, match="far enough"):
                await (plug(daemon, row, {}, "d", device["d"]) if runs else start(daemon, row, {}, device))

    async def check(client: Local) -> None:
        daemon = client.api.daemon
        daemon.devices = cast(Any, SimpleNamespace(driver_for=driver_for))
        async with asyncio.TaskGroup() as tasks, actions.at_rest(daemon, volume):
            giving = tasks.create_task(give(daemon))
            await waits.wait()
            for _ in range(20):  # all the turns it could want
                await asyncio.sleep(0)
            happened.append("restored")
            assert not giving.done()
        assert happened == ["restored", "given"]

    with_client(tmp_path, store, check)


def test_an_instance_that_comes_to_have_a_volume_before_its_restore_is_waited_for(tmp_path: Path) -> None:
    store = alone()
    volume = add(store, "v1")
    instance(store, "c1", disk("v1"))

    async def check(client: Local) -> None:
        daemon = client.api.daemon
        restored = asyncio.Event()

        async def restore() -> None:
            async with actions.at_rest(daemon, volume):
                assert daemon.lock("instance default/c2").locked()
                restored.set()

        async with asyncio.TaskGroup() as tasks:
            async with daemon.lock("instance default/c1"):
                tasks.create_task(restore())
                await asyncio.sleep(0)
                instance(store, "c2", disk("v1"))
            await restored.wait()

    with_client(tmp_path, store, check)


def test_what_a_crash_left_of_a_snapshot_is_removed(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1"})
        assert await done(client, "POST", ONE, {"name": "s"}) == ""
        (row,) = store.state.rows(VOLUMES).values()
        cut = msgspec.structs.replace(row.snapshots[0], id="cut", name="cut")
        store.run(CreateVolumeSnapshot(row.id, cut))
        daemon = client.api.daemon
        await daemon.pools.driver("p1").snapshot(on_disk(row, "cut"))
        assert actions.is_to_settle(store.state.get(VOLUMES, row.id))
        await actions.settle(daemon, row.id)
        (kept,) = store.state.get(VOLUMES, row.id).snapshots
        assert kept.name == "s"
        left = [volume.snapshot for volume in await daemon.pools.driver("p1").volumes()]
        assert sorted(left) == ["", kept.id]

    with_client(tmp_path, store, check)


def test_an_expired_one_that_cannot_be_removed_keeps_no_other(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        daemon, last = client.api.daemon, LIST.replace("p1", "p2")
        for there in (LIST, last):
            await client.ask("POST", there, {"name": "v1"})
            body = {"name": "s0", "expires_at": "2020-01-01T00:00:00Z"}
            assert await done(client, "POST", f"{there}/v1/snapshots", body) == ""
        await daemon.pools.driver("p1").close_pool()
        daemon.pools._open.pop("p1")
        await expire(daemon)
        left = [row.pool for row in store.state.rows(VOLUMES).values() if row.snapshots]
        assert left == ["p1"]

    with_client(tmp_path, store, check)
