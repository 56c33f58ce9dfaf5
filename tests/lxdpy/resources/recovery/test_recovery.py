import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import yaml

from cluster.errors import Conflict, Invalid
from lxdpy.daemon.records import Records
from lxdpy.host.storage import records
from lxdpy.host.storage.driver import Volume
from lxdpy.host.storage.layout import CorruptVolume
from lxdpy.resources.gpus.commands import Grant, ReportGpus
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.instances import build
from lxdpy.resources.instances.commands import CreateInstance, SetInstanceStatus
from lxdpy.resources.instances.model import IDMAPS, INSTANCES, Instance, Move
from lxdpy.resources.migration import move
from lxdpy.resources.migration.model import RESIDUES
from lxdpy.resources.profiles.commands import CreateProfile, UpdateProfile
from lxdpy.resources.profiles.model import Profile
from lxdpy.resources.projects.commands import CreateProject
from lxdpy.resources.projects.model import Project
from lxdpy.resources.recovery import actions, record
from lxdpy.resources.recovery.model import PoolAsked
from lxdpy.resources.recovery.plan import Plan
from lxdpy.resources.recovery.scan import instances_in
from lxdpy.resources.recovery.writing import is_anothers
from lxdpy.resources.snapshots.model import SNAPSHOTS
from lxdpy.resources.storage_pools.model import POOLS
from lxdpy.resources.storage_volumes.model import VOLUMES
from lxdpy.resources.tables import COMMANDS
from tests.lxdpy.fakes import MEMBER_ID, Applied, LocalStore
from tests.lxdpy.resources.recovery.scene import DATA, SNAP, WEB, Server, furnished, lost
from tests.lxdpy.resources.storage_volumes.scene import ROOT, alone


def test_what_was_lost_is_as_it_was_but_stopped_and_without_gpus(tmp_path: Path) -> None:
    async def main() -> None:
        server = await lost(tmp_path)
        store = server.store
        found = await actions.validate(server.daemon, ())
        assert found.errors == []
        assert {(row.project, row.type, row.name, row.snapshot_count) for row in found.unknown} == {
            ("own", "custom", "data", 1),
            ("own", "container", "web", 1),
        }
        assert not store.state.rows(INSTANCES), "nothing is changed by looking"
        await actions.run(server.daemon, ())
        row = store.state.get(INSTANCES, "own/web")
        same = ("uuid", "description", "devices", "profiles", "created_at", "last_used_at", "pool", "status")
        for field in same:
            assert getattr(row, field) == getattr(WEB, field), field
        kept = {key: row.config.get(key) for key in WEB.config}
        assert kept == WEB.config
        assert store.state.rows(IDMAPS)[str(row.idmap)].instance == row.key
        snapshot = store.state.get(SNAPSHOTS, SNAP.key)
        assert snapshot == SNAP
        assert store.state.get(VOLUMES, DATA.id) == DATA
        again = await actions.run(server.daemon, ())
        assert (again.unknown, again.errors) == ([], [])

    asyncio.run(main())


def test_a_grant_is_not_recovered(tmp_path: Path) -> None:
    async def main() -> None:
        store = furnished()
        server = await Server(tmp_path, store).open()
        card = GpuRow(uuid="g1", member=MEMBER_ID, vendor="nvidia", model="A100", memory=1 << 30)
        store.run(ReportGpus(MEMBER_ID, (card,)))
        holder = msgspec.structs.replace(WEB, devices=ROOT)
        store.run(CreateInstance(holder, (Grant("limits.gpu", "g1"),)))
        store.run(SetInstanceStatus(WEB.key, MEMBER_ID, "Running", {}, started=True))
        assert any("g1" in value for value in store.state.get(INSTANCES, WEB.key).config.values())
        await server.daemon.pools.driver("p1").create(Volume("own_web"))
        await server.write()
        other = await Server(tmp_path, furnished()).open()
        other.store.run(ReportGpus(MEMBER_ID, (card,)))
        await actions.run(other.daemon, ())
        row = other.store.state.get(INSTANCES, WEB.key)
        assert row.status == "Stopped"
        assert not any("g1" in value for value in row.config.values())
        assert not other.store.state.get(GPUS, "g1").holders

    asyncio.run(main())


def test_what_is_missing_is_told_and_nothing_is_registered(tmp_path: Path) -> None:
    async def main() -> None:
        await lost(tmp_path)
        bare = alone()
        bare.run(CreateProject(Project("third")))
        server = await Server(tmp_path, bare).open()
        server.runs.add("own_web")
        expected = 'Profile "fast" in project "default"'
        assert (await actions.validate(server.daemon, ())).errors == [expected]
        with pytest.raises(Invalid, match=expected):
            await actions.run(server.daemon, ())
        assert not bare.state.rows(VOLUMES)
        assert not bare.state.rows(INSTANCES)
        bare.run(CreateProfile(Profile("default", "fast")))
        (why,) = (await actions.validate(server.daemon, ())).errors
        assert why.startswith('Instance "web" in project "own" runs')
        server.runs.clear()
        bare.put(INSTANCES, WEB.key, msgspec.structs.replace(WEB, uuid="another", location="elsewhere"))
        (why,) = (await actions.validate(server.daemon, ())).errors
        assert 'Instance "web" already exists' in why
        bare.put(INSTANCES, WEB.key, None)
        bare.put(VOLUMES, "x", msgspec.structs.replace(DATA, id="x"))
        assert "Volume by that name already exists" in (await actions.validate(server.daemon, ())).errors[0]

    asyncio.run(main())


def test_networks_projects_and_volumes_elsewhere_are_named(tmp_path: Path) -> None:
    async def errors(row: Instance, store: LocalStore) -> list[str]:
        server = await Server(tmp_path, store).open()
        folder = server.folder("own_web")
        records.write(folder, Volume("own_web"), record.of_instance(store.state, row))
        return (await actions.validate(server.daemon, ())).errors

    async def main() -> None:
        await lost(tmp_path)
        (tmp_path / "storage-pools/p1/custom" / DATA.id).rename(tmp_path / "elsewhere")
        assert "Storage volume not found" in (await errors(WEB, furnished()))[0]
        nic = {"eth0": {"type": "nic", "network": "lxdbr0"}}
        wired = msgspec.structs.replace(WEB, devices=ROOT | nic)
        assert (await errors(wired, furnished())) == ['Network "lxdbr0" in project "default"']
        gone = msgspec.structs.replace(WEB, devices=ROOT)
        store = furnished()
        folder = (await Server(tmp_path, store).open()).folder("own_web")
        text = record.of_instance(store.state, gone).replace(b"project: own", b"project: lost")
        folder.rename(folder.with_name("lost_web"))
        records.write(folder.with_name("lost_web"), Volume("lost_web"), text)
        assert (await actions.validate((await Server(tmp_path, store).open()).daemon, ())).errors == [
            'Project "lost"'
        ]

    asyncio.run(main())


def test_a_pool_that_is_not_known_is_adopted_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        await lost(tmp_path)
        store = furnished()
        store.put(POOLS, "p1", None)
        server = await Server(tmp_path, store).open()
        assert (await actions.validate(server.daemon, ())).unknown == []
        with pytest.raises(Invalid, match="is not there: no /"):
            await actions.validate(server.daemon, [PoolAsked("other", "dir")])
        (tmp_path / "any").mkdir()
        other = PoolAsked("other", "dir", config={"source": str(tmp_path / "any")})
        with pytest.raises(Invalid, match="has none of the folders containers, custom"):
            await actions.validate(server.daemon, [other])
        assert not list((tmp_path / "any").iterdir())
        with pytest.raises(Invalid, match='Unknown storage driver "zsf"'):
            await actions.validate(server.daemon, [PoolAsked("p1", "zsf")])
        with pytest.raises(Invalid, match="is known already"):
            await actions.validate(server.daemon, [PoolAsked("p2", "dir")])
        found = await actions.validate(server.daemon, [PoolAsked("p1", "dir")])
        assert (len(found.unknown), found.errors) == (2, [])
        assert store.state.find(POOLS, "p1") is None
        await actions.run(server.daemon, [PoolAsked("p1", "dir")])
        assert store.state.get(POOLS, "p1").members[MEMBER_ID].status == "Created"
        assert store.state.get(INSTANCES, WEB.key).pool == "p1"
        assert await server.daemon.pools.driver("p1").volumes()

    asyncio.run(main())


def test_what_anybody_else_has_written_is_no_record(tmp_path: Path) -> None:
    folder, volume = tmp_path / "containers/c1", Volume("c1")
    folder.mkdir(parents=True)
    path = folder / records.RECORD
    with pytest.raises(FileNotFoundError):
        records.read(folder, volume)
    records.write(folder, volume, b"text")
    assert (records.read(folder, volume), path.stat().st_mode & 0o777) == (b"text", 0o600)
    path.chmod(0o666)
    with pytest.raises(CorruptVolume, match="only root can write"):
        records.read(folder, volume)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o600)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptVolume):
        records.read(folder, volume)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(CorruptVolume, match="only root can write"):
        records.read(folder, volume)
    records.write(folder, volume, b"anew")
    assert records.read(folder, volume) == b"anew"
    records.write(tmp_path / "containers/gone", Volume("gone"), b"text")
    assert sorted(each.name for each in folder.parent.iterdir()) == ["c1"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"container: {name: c1}\n", "lxdpy"),
        (b"[", "not YAML"),
        (b"container: {name: c1}\nlxdpy: {uuid: ''}\n", "whose it is"),
        (b"container: {name: c2}\nlxdpy: {uuid: u}\n", 'that of "c2" in project "default"'),
    ],
)
def test_a_record_that_says_nothing_sensible_is_told_of(tmp_path: Path, text: bytes, why: str) -> None:
    async def main() -> Plan:
        server = await Server(tmp_path, alone()).open()
        await server.daemon.pools.driver("p1").create(Volume("c1"))
        records.write(server.folder("c1"), Volume("c1"), text)
        return await actions.validate(server.daemon, ())

    (problem,) = asyncio.run(main()).errors
    assert why in problem


def test_a_custom_volume_without_a_record_is_called_as_its_folder(tmp_path: Path) -> None:
    async def main() -> None:
        server = await Server(tmp_path, furnished()).open()
        driver = server.daemon.pools.driver("p1")
        await driver.create(Volume("own_v1", "custom"))
        await driver.snapshot(Volume("own_v1", "custom", "s0"))
        await actions.run(server.daemon, ())
        row = server.store.state.get(VOLUMES, "own_v1")
        assert (row.project, row.name, [one.name for one in row.snapshots]) == ("own", "v1", ["s0"])

    asyncio.run(main())


def test_what_is_coming_or_going_is_not_taken_for_lost() -> None:
    store = furnished()
    coming = msgspec.structs.replace(WEB, location="m2", move=Move("op", MEMBER_ID, "p1"))
    renamed = msgspec.structs.replace(WEB, name="new", config={"volatile.renamed_from": "old"})
    for row in (coming, renamed):
        store.put(INSTANCES, row.key, row)
    assert instances_in(store.state, MEMBER_ID, "p1") == {"own_web", "own_new", "old"}


def test_a_new_instance_of_its_name_does_not_take_the_place_of_a_lost_one(tmp_path: Path) -> None:
    async def main() -> None:
        server = await lost(tmp_path)
        assert not await is_anothers(server.daemon, WEB)
        assert await is_anothers(server.daemon, msgspec.structs.replace(WEB, uuid="another"))
        assert not await is_anothers(server.daemon, msgspec.structs.replace(WEB, uuid="another", name="x"))

    asyncio.run(main())


def test_a_record_is_lxds_backup_yaml_and_told_by_nobody_but_the_owner(tmp_path: Path) -> None:
    async def main() -> None:
        server = await Server(tmp_path, furnished()).open()
        await server.furnish()
        tree = yaml.safe_load((server.folder("own_web") / "backup.yaml").read_text())
        assert set(tree) == {
            "container", "snapshots", "pool", "profiles", "volume", "volume_snapshots", "lxdpy",
        }  # fmt: skip
        assert tree["container"]["config"]["user.number"] == "007"
        assert [one["name"] for one in tree["profiles"]] == ["fast"]
        moved = msgspec.structs.replace(WEB, location="elsewhere", description="new")
        server.store.put(INSTANCES, WEB.key, moved)
        await server.write()
        text = (server.folder("own_web") / "backup.yaml").read_text()
        assert yaml.safe_load(text)["container"]["description"] == "d"

    asyncio.run(main())


def test_changes_are_noted_of_all_that_a_record_tells(tmp_path: Path) -> None:
    async def main() -> list[tuple[str, str]]:
        store = furnished()
        server = await Server(tmp_path, store).open()
        await server.furnish()
        kept, noted = Records(server.daemon), list[tuple[str, str]]()
        kept.poke = lambda table, key: noted.append((table, key))  # type: ignore[method-assign]

        def heard(applied: Applied) -> None:
            for change in applied.changes:
                kept.changed(change)

        store.watch(heard)
        store.run(UpdateProfile("default/fast", "", {"user.fast": "no"}, {}))
        store.run(CreateProfile(Profile("default", "other")))
        store.put(SNAPSHOTS, SNAP.key, None)
        store.put(VOLUMES, DATA.id, msgspec.structs.replace(DATA, description="new"))
        store.put(INSTANCES, WEB.key, msgspec.structs.replace(WEB, description="new"))
        ran = msgspec.structs.replace(WEB, description="new", status="Running", last_used_at=3000.0)
        store.put(INSTANCES, WEB.key, ran)
        store.put(INSTANCES, "own/x", msgspec.structs.replace(WEB, name="x", location="elsewhere"))
        return noted

    assert asyncio.run(main()) == [
        ("instances", "own/web"),
        ("instances", "own/web"),
        ("storage_volumes", "id-of-data"),
        ("instances", "own/web"),
    ], "not for a start"


def test_the_command_has_a_tag_of_its_own() -> None:
    assert [command.__struct_config__.tag for command in COMMANDS].count("recovery.import") == 1


def test_a_build_over_a_lost_instance_is_refused_and_leaves_it(tmp_path: Path) -> None:
    async def main() -> None:
        server = await lost(tmp_path)
        row = msgspec.structs.replace(WEB, uuid="new", operation="op", devices=ROOT)
        server.store.run(CreateInstance(row))
        server.daemon.stopping = asyncio.Event()
        with pytest.raises(Conflict, match="`lxdpy recover` brings it back"):
            await build.build(server.daemon, row.key, cast(Any, SimpleNamespace(id="op")))
        assert server.store.state.find(INSTANCES, row.key) is None
        assert (server.folder("own_web") / "overlay/upper").is_dir()

    asyncio.run(main())


def test_a_move_to_where_a_lost_instance_lies_is_given_up_and_leaves_it(tmp_path: Path) -> None:
    async def main() -> None:
        server = await lost(tmp_path)
        store, coming = server.store, Move("op", MEMBER_ID, "p1")
        store.put(INSTANCES, WEB.key, msgspec.structs.replace(WEB, uuid="new", location="m2", move=coming))
        await move.drive(server.daemon, WEB.key)
        assert "`lxdpy recover` brings it back" in store.state.get(INSTANCES, WEB.key).stayed
        (residue,) = store.state.rows(RESIDUES)
        await move.clear(server.daemon, residue)
        assert not store.state.rows(RESIDUES)
        assert (server.folder("own_web") / "overlay/upper").is_dir()

    asyncio.run(main())
