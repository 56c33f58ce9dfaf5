import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster import failpoints
from cluster.errors import Conflict, Invalid
from lxdpy.daemon.context import Daemon
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.backups.commands import FinishBackup
from lxdpy.resources.backups.model import BACKUPS, Backup
from lxdpy.resources.instances import given
from lxdpy.resources.instances.delete import delete
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.instances.rename import rename
from lxdpy.resources.snapshots import actions, readers
from lxdpy.resources.snapshots.commands import RESTORING, CreateSnapshot, FinishSnapshot
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot
from lxdpy.resources.snapshots.readers import used
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.instances.scene import ROOT, FakeVolumes, house, instance, ready_store
from tests.patience import eventually

SNAPSHOT = Snapshot("default", "c1", "s0", "id0")
HIDDEN = Snapshot("default", "c1", "copy id1", "id1")


@pytest.fixture
def store() -> LocalStore:
    """With an instance c1 that has a snapshot s0."""
    store = ready_store()
    instance(store, "c1", pool="default")
    store.run(CreateSnapshot(SNAPSHOT, MEMBER_ID))
    store.run(FinishSnapshot(SNAPSHOT.key, SNAPSHOT.id))
    return store


def in_house(root: Path, store: LocalStore, story: Callable[[Daemon], Awaitable[None]]) -> None:
    async def main() -> None:
        (root / "run").mkdir()
        async with asyncio.TaskGroup() as tasks:
            await story(house(root, store, tasks))

    asyncio.run(main())


@pytest.mark.parametrize("id", [SNAPSHOT.id, HIDDEN.id])
def test_an_instance_stays_until_its_snapshots_are_read(tmp_path: Path, store: LocalStore, id: str) -> None:
    store.run(CreateSnapshot(HIDDEN, MEMBER_ID))

    async def story(daemon: Daemon) -> None:
        row = store.state.get(INSTANCES, "default/c1")
        with used(daemon, id):
            deleting = asyncio.create_task(delete(daemon, row))
            await eventually(lambda: daemon.let_go)
            assert store.state.rows(INSTANCES)
        await deleting
        assert not store.state.rows(INSTANCES)

    in_house(tmp_path, store, story)


@pytest.mark.parametrize("id", [SNAPSHOT.id, HIDDEN.id])
def test_what_is_copied_for_long_is_neither_deleted_nor_renamed(
    tmp_path: Path, store: LocalStore, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.run(CreateSnapshot(HIDDEN, MEMBER_ID))
    monkeypatch.setattr(readers, "READ_WITHIN", 0.0)

    async def story(daemon: Daemon) -> None:
        row = store.state.get(INSTANCES, "default/c1")
        with used(daemon, id):
            with pytest.raises(Conflict, match="is being copied"):
                await delete(daemon, row)
            with pytest.raises(Conflict, match="is being copied"):
                await rename(daemon, row.key, "c2", "default")
        store.put(BACKUPS, "default/c1/b0", Backup("default", "c1", "b0", "id2"))
        with pytest.raises(Conflict, match="backup is being made"):
            await rename(daemon, row.key, "c2", "default")
        store.run(FinishBackup("default/c1/b0", "id2"))
        await rename(daemon, row.key, "c2", "default")
        assert set(store.state.rows(INSTANCES)) == {"default/c2"}

    in_house(tmp_path, store, story)


def test_what_could_not_be_deleted_is_not_deleted_later(tmp_path: Path, store: LocalStore) -> None:
    """It may have been started again by then."""

    async def story(daemon: Daemon) -> None:
        row = store.state.get(INSTANCES, "default/c1")
        busy = FakeVolumes(tmp_path)

        async def unmount(_: Volume) -> None:
            raise Conflict("busy")

        busy.unmount = unmount  # type: ignore[method-assign,assignment]
        daemon.pools.driver = lambda _: busy  # type: ignore[method-assign,assignment,return-value]
        with pytest.raises(Conflict, match="busy"):
            await delete(daemon, row)
        assert not await given.is_marked(daemon, row)
        await given.mark_deleted(daemon, row)  # one that a crash has cut short goes on
        with pytest.raises(Conflict, match="busy"):
            await delete(daemon, row)
        assert await given.is_marked(daemon, row)

    in_house(tmp_path, store, story)


def test_what_the_log_would_refuse_of_a_restore_is_refused_before_it(
    tmp_path: Path, store: LocalStore
) -> None:
    """Nobody can bring the files back."""
    gone = {"type": "disk", "pool": "default", "source": "gone", "path": "/v"}
    store.put(SNAPSHOTS, SNAPSHOT.key, replace(SNAPSHOT, status="Ready", devices={"root": ROOT, "d": gone}))

    async def story(daemon: Daemon) -> None:
        with pytest.raises(Invalid, match="Storage volume not found"):  # a driver that restores is not there
            await actions.restore(daemon, "default/c1", "s0")
        assert RESTORING not in store.state.get(INSTANCES, "default/c1").config

    in_house(tmp_path, store, story)


def test_nobody_begins_to_read_a_snapshot_that_is_being_removed(tmp_path: Path, store: LocalStore) -> None:
    refused = []

    async def story(daemon: Daemon) -> None:
        def read() -> None:
            with pytest.raises(Conflict), used(daemon, "other", SNAPSHOT.id):
                pass
            refused.append(dict(daemon.in_use))

        with used(daemon, SNAPSHOT.id), pytest.raises(Conflict, match="is being copied"):
            await actions.delete(daemon, "default/c1", SNAPSHOT)
        with failpoints.inject("snapshot.delete", read):
            await actions.delete(daemon, "default/c1", SNAPSHOT)
        assert daemon.going == set()

    in_house(tmp_path, store, story)
    assert refused == [{}]
    assert not store.state.rows(SNAPSHOTS)
