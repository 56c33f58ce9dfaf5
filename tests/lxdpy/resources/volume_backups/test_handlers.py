import io
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.errors import AlreadyExists
from lxdpy.resources.backups import restore
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.lifecycle import Lifecycle, all_events
from lxdpy.resources.storage_volumes.model import VOLUMES, VolumeBackup
from lxdpy.resources.volume_backups import actions
from lxdpy.resources.volume_backups.commands import CreateVolumeBackup, FinishVolumeBackup
from tests.lxdpy.fakes import Local, LocalStore
from tests.lxdpy.resources.storage_volumes.scene import LIST, add, alone, disk, instance, with_client
from tests.lxdpy.resources.storage_volumes.test_handlers import done, folder

ONE = f"{LIST}/v1/backups"


async def exported(client: Local, root: Path, store: LocalStore) -> bytes:
    """A backup of v1, which has a snapshot `s` of what it was."""
    await client.ask("POST", LIST, {"name": "v1", "description": "d", "config": {"user.a": "b"}})
    file = folder(root, store, "v1") / "file"
    file.write_text("then")
    assert await done(client, "POST", f"{LIST}/v1/snapshots", {"name": "s"}) == ""
    file.write_text("now")
    assert await done(client, "POST", ONE, {"compression_algorithm": "none"}) == ""
    reply = await client.reply("GET", f"{ONE}/backup0/export")
    return await reply.read()


async def imported(client: Local, data: bytes, name: str = "") -> Any:
    headers = {"Content-Type": "application/octet-stream", "X-LXD-name": name}
    reply = await client.reply("POST", LIST, data, **headers)
    answer = msgspec.json.decode(await reply.read())
    if answer["type"] == "error":
        return answer["error"]
    operation = client.api.daemon.operations.find(answer["metadata"]["id"])
    assert operation is not None
    await operation.wait()
    return operation.err


def test_a_volume_comes_back_from_its_backup_with_its_snapshots(tmp_path: Path) -> None:
    store = alone()
    heard: list[Lifecycle] = []
    store.watch(lambda applied: heard.extend(all_events(applied.changes)))

    async def check(client: Local) -> None:
        data = await exported(client, tmp_path, store)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names = tar.getnames()
        assert names[0] == "backup/index.yaml"
        assert {"backup/volume/file", "backup/volume-snapshots/s/file"} <= set(names)
        assert await imported(client, data) == "Volume by that name already exists"
        assert await imported(client, data, "v2") == ""
        assert (folder(tmp_path, store, "v2") / "file").read_text() == "now"
        shown = (await client.ask("GET", f"{LIST}/v2"))["metadata"]
        assert (shown["description"], shown["config"]) == ("d", {"user.a": "b"})
        assert (await client.ask("PUT", f"{LIST}/v2", {"restore": "s"}))["status_code"] == 200
        assert (folder(tmp_path, store, "v2") / "file").read_text() == "then"
        assert await done(client, "POST", f"{ONE}/backup0", {"name": "kept"}) == ""
        (row,) = (await client.ask("GET", f"{ONE}?recursion=1"))["metadata"]
        assert (row["name"], row["volume_only"], row["optimized_storage"]) == ("kept", False, False)
        assert await done(client, "DELETE", f"{ONE}/kept", None) == ""
        assert (await client.ask("GET", ONE))["metadata"] == []

    with_client(tmp_path, store, check)
    assert [event.action for event in heard if "volume-backup" in event.action] == [
        "storage-volume-backup-created",
        "storage-volume-backup-renamed",
        "storage-volume-backup-deleted",
    ]
    assert not list((tmp_path / "volume-backups").iterdir())
    assert not list((tmp_path / "backups").iterdir())


def test_what_the_backup_of_a_used_volume_is_made_of_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = alone()
    seen: list[set[str]] = []

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1"})
        instance(store, "c1", disk("v1"))
        runs = msgspec.structs.replace(store.state.get(INSTANCES, "default/c1"), status="Running")
        store.put(INSTANCES, runs.key, runs)

        async def write(*_: object) -> None:
            seen.append(set(client.api.daemon.in_use))

        monkeypatch.setattr(actions, "write", write)
        assert await done(client, "POST", ONE, {}) == ""
        (row,) = store.state.rows(VOLUMES).values()
        assert seen == [{row.backups[0].id}]
        assert not client.api.daemon.in_use

    with_client(tmp_path, store, check)


def test_what_is_being_imported_is_not_swept_away(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        data = await exported(client, tmp_path, store)
        daemon = client.api.daemon
        store.watch(lambda _: restore.sweep(daemon))
        reply = await client.reply(
            "POST", LIST, data, **{"Content-Type": "application/octet-stream", "X-LXD-name": "v2"}
        )
        restore.sweep(daemon)  # as a member does that is there again, before the operation has begun
        operation = daemon.operations.find(msgspec.json.decode(await reply.read())["metadata"]["id"])
        assert operation is not None
        await operation.wait()
        assert operation.err == ""

    with_client(tmp_path, store, check)


def test_what_is_no_whole_backup_of_a_volume_leaves_nothing(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        data = await exported(client, tmp_path, store)
        for content, said in (
            (b"hello" * 300, "Not a backup"),
            (data[:-2048], "cut short"),
            (data.replace(b"type: custom\nconfig", b"type: images\nconfig"), 'of type "images"'),
            (
                data.replace(b"optimized: false\n", b"optimized: true \n"),
                'Optimized backup storage driver "dir" differs from',
            ),
            (data.replace(b"snapshots:\n- s\n", b"snapshots:\n- t\n"), "mismatch"),
        ):
            assert said in await imported(client, content, "v2")
        assert [row.name for row in store.state.rows(VOLUMES).values()] == ["v1"]

    with_client(tmp_path, store, check)
    assert len(list((tmp_path / "storage-pools/p1/custom").iterdir())) == 1
    assert not list((tmp_path / "backups").iterdir())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", f"{LIST}/none/backups", {}, 404, "Storage pool volume not found"),
        ("POST", ONE, {"name": "a/b"}, 400, "Backup names may not contain slashes"),
        ("POST", ONE, {"name": "there"}, 409, 'Backup "v1/there" already exists'),
        ("POST", ONE, {"compression_algorithm": "rar"}, 400, 'Invalid compression algorithm "rar"'),
        ("POST", f"{ONE}/there", {"name": "there"}, 409, 'Backup "v1/there" already exists'),
        ("GET", f"{ONE}/none", None, 404, "Storage volume backup not found"),
        ("GET", f"{ONE}/none/export", None, 404, "Storage volume backup not found"),
        ("DELETE", f"{ONE}/none", None, 404, "Storage volume backup not found"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, method: str, path: str, body: dict[str, Any] | None, status: int, said: str
) -> None:
    store = alone()
    id = add(store, "v1")
    store.run(CreateVolumeBackup(id, VolumeBackup("b", "there")))
    store.run(FinishVolumeBackup(id, "b"))
    with pytest.raises(AlreadyExists):
        store.run(CreateVolumeBackup(id, VolumeBackup("c", "there")))

    async def check(client: Local) -> None:
        answer = await client.ask(method, path, body)
        assert answer["error_code"] == status
        assert answer["error"].startswith(said)

    with_client(tmp_path, store, check)


def test_what_a_crash_left_of_a_backup_is_removed_and_what_has_expired(tmp_path: Path) -> None:
    store = alone()

    async def check(client: Local) -> None:
        await exported(client, tmp_path, store)
        daemon = client.api.daemon
        (row,) = store.state.rows(VOLUMES).values()
        for id, backup in (
            ("cut", VolumeBackup("cut", "cut")),
            ("old", VolumeBackup("old", "o", expires_at=1.0)),
        ):
            store.run(CreateVolumeBackup(row.id, backup))
            actions.path_of(daemon, id).write_bytes(b"")
        store.run(FinishVolumeBackup(row.id, "old"))
        actions.path_of(daemon, "stray").write_bytes(b"")
        for id in await actions.ids(daemon):
            await actions.settle(daemon, id)
        assert [one.name for one in store.state.get(VOLUMES, row.id).backups] == ["backup0", "o"]
        await actions.expire(daemon)
        (kept,) = store.state.get(VOLUMES, row.id).backups
        assert {path.name for path in actions.folder(daemon).iterdir()} == {kept.id}

    with_client(tmp_path, store, check)


def test_the_files_of_backups_go_with_the_volume() -> None:
    store = alone()
    id = add(store, "v1")
    store.run(CreateVolumeBackup(id, VolumeBackup("b", "there")))
    making = store.state.get(VOLUMES, id)
    store.run(FinishVolumeBackup(id, "b"))
    ready = store.state.get(VOLUMES, id)
    assert actions.changed(None, making) == actions.changed(ready, None) == {"b"}
    assert actions.changed(making, ready) == set()
