import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Conflict, NotFound
from lxdpy.host.storage.driver import Volume
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.storage_volumes import actions
from lxdpy.resources.storage_volumes.commands import CreateVolume
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore
from tests.lxdpy.resources.cluster.scene import OTHER
from tests.lxdpy.resources.storage_volumes.scene import LIST, add, alone, disk, instance, scene, with_client
from tests.patience import eventually


def folder(root: Path, store: LocalStore, name: str, pool: str = "p1") -> Path:
    (row,) = (row for row in store.state.rows(VOLUMES).values() if (row.name, row.pool) == (name, pool))
    return root / "storage-pools" / pool / "custom" / row.id


async def done(client: Local, method: str, path: str, body: object) -> str:
    """The error of an operation, "" for none."""
    return await outcome(client, await client.ask(method, path, body))


async def outcome(client: Local, answer: dict[str, Any]) -> str:
    assert answer["type"] == "async", answer
    operation = client.api.daemon.operations.find(answer["metadata"]["id"])
    assert operation is not None
    await operation.wait()
    return operation.err


def test_a_volume_lives_from_creation_to_deletion(tmp_path: Path) -> None:
    store = scene()

    async def check(client: Local) -> None:
        body = {"name": "v1", "description": "data", "config": {"user.a": "b"}}
        made = await client.reply(
            "POST", LIST, b'{"name": "v1", "description": "data"}', **{"Content-Type": "application/json"}
        )
        assert (made.status, made.headers.get("Location")) == (200, None)
        assert (await client.ask("POST", LIST, body))["error"] == "Volume by that name already exists"
        assert (await client.ask("GET", LIST))["metadata"] == [f"{LIST}/v1?target=n1"]
        assert folder(tmp_path, store, "v1").is_dir()
        await client.ask("PATCH", f"{LIST}/v1", {"config": {"user.c": "d"}})
        shown = (await client.ask("GET", f"{LIST}/v1"))["metadata"]
        assert shown == {
            "config": {"user.c": "d"}, "description": "data", "name": "v1", "type": "custom", "used_by": [],
            "location": "n1", "content_type": "filesystem", "project": "default",
            "created_at": "2027-01-15T08:00:00Z",
        }  # fmt: skip
        moved = await client.reply("POST", f"{LIST}/v1", b'{"name": "v2"}')
        assert (moved.status, moved.headers["Location"]) == (201, f"{LIST}/v2")
        path = folder(tmp_path, store, "v2")
        assert (await client.ask("DELETE", f"{LIST}/v2"))["status_code"] == 200
        assert not path.exists()
        assert not store.state.rows(VOLUMES)

    with_client(tmp_path, store, check)


def test_owners_are_not_both_shifted_and_left_as_they_are(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        one, other = ({f"security.{how}": "true"} for how in ("shifted", "unmapped"))
        refused = (400, "security.unmapped and security.shifted are mutually exclusive")
        await client.ask("POST", LIST, {"name": "v1", "config": one})
        for method, path, config in (("POST", LIST, one | other), ("PATCH", f"{LIST}/v1", other)):
            answer = await client.ask(method, path, {"name": "v2", "config": config})
            assert (answer["error_code"], answer["error"]) == refused
        assert (await client.ask("PUT", f"{LIST}/v1", {"config": other}))["status_code"] == 200

    with_client(tmp_path, alone(), check)


def test_a_copy_has_the_files_and_the_config_and_a_move_leaves_none(tmp_path: Path) -> None:
    store = scene()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1", "config": {"user.a": "b"}})
        for name in ("rootfs/deep/file", "other"):  # names that mean something in an instance's volume
            path = folder(tmp_path, store, "v1") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        source = {"type": "copy", "name": "v1", "pool": "p1"}
        assert await done(client, "POST", LIST, {"name": "v2", "source": source}) == ""
        assert await done(client, "POST", LIST.replace("p1", "p2"), {"name": "v1", "source": source}) == ""
        assert await done(client, "POST", f"{LIST}/v2", {"name": "v3", "pool": "p2"}) == ""
        for name in ("v1", "v3"):
            copied = folder(tmp_path, store, name, "p2")
            assert (copied / "rootfs/deep/file").read_text() == "rootfs/deep/file"
            assert (copied / "other").read_text() == "other"
        assert {(row.pool, row.name, row.config["user.a"]) for row in store.state.rows(VOLUMES).values()} == {
            ("p1", "v1", "b"), ("p2", "v1", "b"), ("p2", "v3", "b"),
        }  # fmt: skip
        assert len(list((tmp_path / "storage-pools/p1/custom").iterdir())) == 1

    with_client(tmp_path, store, check)


def test_a_move_takes_what_there_is_when_it_begins_and_stays_undone_if_that_is_used_in_the_end(
    tmp_path: Path,
) -> None:
    store = scene()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1"})
        (row,) = store.state.rows(VOLUMES).values()

        async def moved(meanwhile: Callable[[], None]) -> str:
            async with client.api.daemon.lock(f"storage volume {row.id}"):
                await client.ask("POST", f"{LIST}/v1/snapshots", {})
                begun = await client.ask("POST", f"{LIST}/v1", {"name": "v1", "pool": "p2"})
                meanwhile()
            return await outcome(client, begun)

        assert await moved(lambda: instance(store, "c1", disk("v1"))) == "The storage volume is still in use"
        assert {(one.pool, one.name) for one in store.state.rows(VOLUMES).values()} == {("p1", "v1")}
        assert list((tmp_path / "storage-pools/p2/custom").iterdir()) == []
        store.put(INSTANCES, "default/c1", None)
        assert await moved(lambda: None) == ""
        (row,) = store.state.rows(VOLUMES).values()
        assert (row.pool, len(row.snapshots)) == ("p2", 2)

    with_client(tmp_path, store, check)


def test_a_client_that_migrates_between_members_has_them_copy(tmp_path: Path) -> None:
    store = scene()

    async def check(client: Local) -> None:
        await client.ask("POST", LIST, {"name": "v1"})
        (folder(tmp_path, store, "v1") / "file").touch()
        offered = (await client.ask("POST", f"{LIST}/v1", {"name": "v1", "migration": True}))["metadata"]
        source = {
            "type": "migration", "name": "v1", "pool": "p1", "secrets": offered["metadata"],
            "operation": f"https://10.0.0.1:8443/1.0/operations/{offered['id']}",
        }  # fmt: skip
        assert await done(client, "POST", LIST, {"name": "v2", "source": source}) == ""
        assert (folder(tmp_path, store, "v2") / "file").exists()
        operation = client.api.daemon.operations.find(offered["id"])
        assert operation is None or operation.is_final

    with_client(tmp_path, store, check)


def test_what_another_server_offers_needs_secrets_and_an_address(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        elsewhere = f"https://10.0.0.9:8443/1.0/operations/00000000-0000-0000-0000-{'0' * 12}"
        source: dict[str, object] = {"type": "migration", "name": "v1", "operation": elsewhere}
        answer = await client.ask("POST", LIST, {"name": "v3", "source": source})
        assert (answer["error_code"], answer["error"]) == (400, "Missing control secret")
        source = {**source, "secrets": {"control": "a", "fs": "b"}, "operation": "ftp://x/1.0/operations/y"}
        answer = await client.ask("POST", LIST, {"name": "v3", "source": source})
        assert "is not the https:// URL of an operation" in answer["error"]
        answer = await client.ask("POST", LIST, {"name": "v3", "source": {**source, "mode": "relay"}})
        assert (answer["error_code"], answer["error"]) == (501, "Mode relay not implemented")
        assert (await client.ask("GET", LIST))["metadata"] == []

    with_client(tmp_path, scene(), check)


def test_a_server_of_its_own_is_named_as_clients_know_it(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        assert (await client.ask("POST", f"{LIST}?target=none", {"name": "v1"}))["status_code"] == 200
        assert (await client.ask("GET", f"{LIST}/v1?target=none"))["metadata"]["location"] == "none"
        assert (await client.ask("GET", LIST))["metadata"] == [f"{LIST}/v1"]
        assert (await client.ask("POST", f"{LIST}?target=n1", {"name": "v2"}))["error_code"] == 404

    with_client(tmp_path, alone(), check)


def test_the_state_says_what_is_used_and_what_may_be(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        for name, config, total in (("v1", {}, {}), ("v2", {"size": "1MiB"}, {"total": 1 << 20})):
            await client.ask("POST", LIST, {"name": name, "config": config})
            usage = (await client.ask("GET", f"{LIST}/{name}/state"))["metadata"]["usage"]
            assert usage == {"used": usage["used"], **total}

    with_client(tmp_path, scene(), check)


def test_a_volume_that_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    store = scene()

    async def check(client: Local) -> None:
        custom = tmp_path / "storage-pools" / "p2" / "custom"
        custom.rmdir()
        custom.write_text("no folder")
        source = {"type": "copy", "name": "v1", "pool": "p1"}
        await client.ask("POST", LIST, {"name": "v1"})
        assert (await client.ask("POST", LIST.replace("p1", "p2"), {"name": "v1"}))["error_code"] == 500
        assert await done(client, "POST", LIST.replace("p1", "p2"), {"name": "v1", "source": source})
        custom.unlink()
        for id in list(store.state.rows(VOLUMES)):
            await actions.settle(client.api.daemon, id)
        assert [(row.pool, row.status) for row in store.state.rows(VOLUMES).values()] == [("p1", "Ready")]

    with_client(tmp_path, store, check)


def test_what_a_crash_kept_from_being_made_goes(tmp_path: Path) -> None:
    store = scene()
    store.run(CreateVolume(StorageVolume("half", "p1", "default", "v1", MEMBER_ID)))
    store.run(CreateVolume(StorageVolume("theirs", "p1", "default", "v1", OTHER)))

    async def check(client: Local) -> None:
        part = tmp_path / "storage-pools/p1/custom/half"
        part.mkdir()
        for id in ("half", "theirs", "none"):
            await actions.settle(client.api.daemon, id)
        assert not part.exists()
        assert list(store.state.rows(VOLUMES)) == ["theirs"]

    with_client(tmp_path, store, check)


def test_of_several_of_one_name_one_has_to_be_meant(tmp_path: Path) -> None:
    store = scene()
    for member in (MEMBER_ID, OTHER):
        add(store, "v1", member)

    async def check(client: Local) -> None:
        answer = await client.ask("GET", f"{LIST}/v1")
        said = 'More than one cluster member has a volume named "v1". Please target a specific member'
        assert (answer["error_code"], answer["error"]) == (400, said)
        for member in ("n1", "n2"):
            shown = (await client.ask("GET", f"{LIST}/v1?target={member}"))["metadata"]
            assert shown["location"] == member
        assert len((await client.ask("GET", f"{LIST}?recursion=1"))["metadata"]) == 2
        assert (await client.ask("GET", f"{LIST}?target=n2"))["metadata"] == [f"{LIST}/v1?target=n2"]

    with_client(tmp_path, store, check)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (LIST, {}, 400, "No name provided"),
        (LIST, {"name": "a/b"}, 400, "Storage volume names may not contain slashes"),
        (LIST, {"name": "v", "config": {"size": "x"}}, 400,
         'Invalid value for size: "x" is not a size, such as 512MiB or 10GB'),
        (LIST, {"name": "v", "content_type": "block"}, 501, 'Content type "block" is for virtual machines'),
        (LIST, {"name": "v", "content_type": "x"}, 400, "Invalid volume content type name"),
        (LIST, {"name": "v", "source": {"type": "x", "name": "y"}}, 400, 'Unknown source type "x"'),
        (LIST, {"name": "v", "source": {"type": "copy", "name": "y"}}, 404, "Storage pool volume not found"),
        (LIST.removesuffix("/custom"), {"name": "v"}, 400,
         "You must provide a storage volume type of the storage volume"),
        (LIST.replace("custom", "container"), {"name": "v"}, 400,
         'Currently not allowed to create storage volumes of type "container"'),
        (LIST.replace("custom", "x"), {"name": "v"}, 400,
         'Currently not allowed to create storage volumes of type "x"'),
        (LIST.replace("p1", "p9"), {"name": "v"}, 404, "Storage pool not found: p9"),
        (f"{LIST}/none", {"name": "v"}, 404, "Storage pool volume not found"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    store = scene()

    async def check(client: Local) -> None:
        answer = await client.ask("POST", path, body)
        assert (answer["error_code"], answer["error"]) == (status, said)

    with_client(tmp_path, store, check)
    assert not store.state.rows(VOLUMES)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"{LIST}/v1", {"restore": "s0"}),
        ("DELETE", f"{LIST}/v1/snapshots/s0", None),
        ("DELETE", f"{LIST}/v1", None),
    ],
)
def test_what_is_being_copied_is_there_to_the_end(
    tmp_path: Path, method: str, path: str, body: dict[str, str] | None
) -> None:
    store = scene()

    async def check(client: Local) -> None:
        daemon = client.api.daemon
        await client.ask("POST", LIST, {"name": "v1"})
        assert await done(client, "POST", f"{LIST}/v1/snapshots", {"name": "s0"}) == ""
        (row,) = store.state.rows(VOLUMES).values()
        files = folder(tmp_path, store, "v1")
        (files / "now").touch()
        snapshot = files.parents[1] / "custom-snapshots" / row.id / row.snapshots[0].id
        with actions.reading(daemon, row), actions.reading(daemon, row, snapshot.name):
            asked = asyncio.create_task(client.ask(method, path, body))
            await eventually(lambda: daemon.let_go)  # it is waited for
            assert ((files / "now").exists(), snapshot.exists()) == (True, True)
            with pytest.raises((NotFound, Conflict)):  # who comes now is too late
                actions.reading(daemon, row, snapshot.name if "snapshots" in path else "").__enter__()
        assert (await asked)["error_code"] == 0
        await eventually(lambda: not ((files / "now").exists() and snapshot.exists()))

    with_client(tmp_path, store, check)


def test_a_volume_is_there_while_a_snapshot_of_it_is_copied(tmp_path: Path) -> None:
    store = scene()

    async def check(client: Local) -> None:
        daemon = client.api.daemon
        await client.ask("POST", LIST, {"name": "v1"})
        assert await done(client, "POST", f"{LIST}/v1/snapshots", {"name": "s0"}) == ""
        (row,) = store.state.rows(VOLUMES).values()
        files, id = folder(tmp_path, store, "v1"), row.snapshots[0].id
        with actions.reading(daemon, row, id):
            deleting = asyncio.create_task(client.ask("DELETE", f"{LIST}/v1"))
            await eventually(lambda: id in daemon.let_go)
            assert files.exists()
            with pytest.raises(NotFound):
                actions.reading(daemon, row, id).__enter__()
        assert (await deleting)["error_code"] == 0
        assert not files.exists()

    with_client(tmp_path, store, check)


def test_a_limit_that_another_has_changed_meanwhile_is_changed_on_disk(tmp_path: Path) -> None:
    store = scene()

    async def check(client: Local) -> None:
        daemon = client.api.daemon
        await client.ask("POST", LIST, {"name": "v1", "config": {"size": "1MiB"}})
        (old,) = store.state.rows(VOLUMES).values()
        sizes: list[int] = []

        async def resize(volume: Volume) -> None:
            sizes.append(volume.size)

        daemon.pools.driver("p1").resize = resize  # type: ignore[method-assign]
        await client.ask("PATCH", f"{LIST}/v1", {"config": {"size": "2MiB"}})
        await actions.change(daemon, old, "its own", old.config, "")
        assert (sizes, store.state.get(VOLUMES, old.id).config) == ([2 << 20, 1 << 20], {"size": "1MiB"})

    with_client(tmp_path, store, check)
