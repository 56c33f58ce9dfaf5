"""What the log says of custom volumes: names, who uses them, when they may go."""

import msgspec
import pytest

from cluster.errors import Error
from cluster.state.command import Command
from lxdpy.resources.cluster.commands import LeaveMember, RemoveMember
from lxdpy.resources.instances.commands import UpdateInstance
from lxdpy.resources.instances.model import INSTANCES, Move
from lxdpy.resources.lifecycle import Lifecycle, all_events
from lxdpy.resources.migration.commands import BeginMove
from lxdpy.resources.profiles.commands import CreateProfile
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.commands import DeleteProject, UpdateProject
from lxdpy.resources.storage_pools.commands import DeletePool
from lxdpy.resources.storage_pools.commands import users as pool_users
from lxdpy.resources.storage_volumes.commands import CreateVolume, DropVolume, ForgetVolume, RenameVolume
from lxdpy.resources.storage_volumes.disks import members_with, users
from lxdpy.resources.storage_volumes.model import VOLUMES, StorageVolume
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.cluster.scene import OTHER
from tests.lxdpy.resources.storage_volumes.scene import ROOT, add, disk, instance, scene


def refused(store: LocalStore, command: Command) -> str:
    before = store.state.tables
    with pytest.raises(Error) as refusal:
        store.run(command)
    assert store.state.tables == before
    return refusal.value.message


def test_a_name_is_taken_once_for_each_member_pool_and_project() -> None:
    store = scene()
    add(store, "v1")
    taken = StorageVolume("x", "p1", "default", "v1", MEMBER_ID)
    assert refused(store, CreateVolume(taken)) == "Volume by that name already exists"
    add(store, "v1", OTHER)
    add(store, "v1", project="own")
    store.run(CreateVolume(StorageVolume("y", "p2", "default", "v1", MEMBER_ID)))
    assert len(store.state.rows(VOLUMES)) == 4


def test_an_instance_has_only_volumes_of_its_own_member() -> None:
    store = scene()
    add(store, "here")
    add(store, "there", OTHER)
    store.run(CreateVolume(StorageVolume("new", "p1", "default", "unfinished", MEMBER_ID)))
    instance(store, "c1", disk("here"))
    for name in ("there", "unfinished", "nowhere"):
        change = UpdateInstance("default/c1", "", {}, ROOT | disk(name), (), False)
        assert refused(store, change) == (
            'Device validation failed for "d": Failed loading custom volume: '
            "Storage volume not found on member n1"
        )


def test_an_instance_moves_only_to_where_its_volumes_are() -> None:
    store = scene()
    add(store, "v1")
    instance(store, "c1", disk("v1"))
    row = store.state.get(INSTANCES, "default/c1")
    store.put(INSTANCES, row.key, msgspec.structs.replace(row, status="Stopped"))
    begin = BeginMove("default/c1", MEMBER_ID, Move("m1", OTHER, "p1"))
    assert "Storage volume not found on member n2" in refused(store, begin)
    add(store, "v1", OTHER)
    store.run(begin)


def test_a_project_without_volumes_uses_those_of_the_default_one() -> None:
    store = scene()
    id = add(store, "v1")
    volume = store.state.get(VOLUMES, id)
    instance(store, "c1", disk("v1"), project="guest")
    assert users(store.state, volume) == ["/1.0/instances/c1?project=guest"]
    change = UpdateInstance("own/c1", "", {}, ROOT | disk("v1"), (), False)
    instance(store, "c1", {}, project="own")
    assert "not found" in refused(store, change)


def test_what_is_used_stays() -> None:
    store = scene()
    id = add(store, "v1")
    instance(store, "c1", disk("custom/v1"))
    assert refused(store, DropVolume(id)) == "The storage volume is still in use"
    store.run(UpdateInstance("default/c1", "", {}, ROOT, (), False))
    store.run(CreateProfile(Profile("default", "data", devices=disk("v1"))))
    assert refused(store, DropVolume(id)) == "The storage volume is still in use"
    assert "in use" in refused(store, DeletePool("p1"))
    assert "/1.0/storage-pools/p1/volumes/custom/v1?target=n1" in pool_users(store.state, "p1")


def test_nobody_can_begin_to_use_what_is_going() -> None:
    store = scene()
    id = add(store, "v1")
    instance(store, "c1", {})
    store.run(DropVolume(id))
    assert "not found" in refused(store, UpdateInstance("default/c1", "", {}, ROOT | disk("v1"), (), False))
    taken = StorageVolume("x", "p1", "default", "v1", MEMBER_ID)
    assert refused(store, CreateVolume(taken)) == "Volume by that name already exists"
    store.run(ForgetVolume(id))
    store.run(CreateVolume(taken))


def test_what_has_a_volume_follows_its_new_name() -> None:
    store = scene()
    id = add(store, "v1")
    instance(store, "c1", disk("v1"))
    store.run(CreateProfile(Profile("default", "data", devices=disk("v1"))))
    store.run(RenameVolume(id, "v2", "default"))
    assert store.state.get(INSTANCES, "default/c1").devices == ROOT | disk("v2")
    assert store.state.get(PROFILES, "default/data").devices == disk("v2")
    add(store, "v1")
    assert refused(store, RenameVolume(id, "v1", "default")) == "Volume by that name already exists"


def test_a_profile_goes_on_meaning_the_volumes_of_other_members() -> None:
    store = scene()
    id = add(store, "v1")
    add(store, "v1", OTHER)
    store.run(CreateProfile(Profile("default", "data", devices=disk("v1"))))
    store.run(RenameVolume(id, "v2", "default"))
    assert store.state.get(PROFILES, "default/data").devices == disk("v1")


def test_a_volume_of_a_running_instance_keeps_its_name() -> None:
    store = scene()
    id = add(store, "v1")
    instance(store, "c1", disk("v1"))
    row = store.state.get(INSTANCES, "default/c1")
    store.put(INSTANCES, row.key, msgspec.structs.replace(row, status="Running"))
    said = "Volume is still in use by running instances"
    assert refused(store, RenameVolume(id, "v2", "default")) == said


def test_placement_is_told_which_members_have_what_is_needed() -> None:
    store = scene()
    for member in (MEMBER_ID, OTHER):
        add(store, "both", member)
    add(store, "one", OTHER)
    known = members_with(store.state, "default", {"a": disk("both")["d"], "b": disk("one")["d"], **ROOT})
    assert known == {
        'storage volume "both" in pool "p1"': ("n1", "n2"),
        'storage volume "one" in pool "p1"': ("n2",),
    }


def test_a_member_with_volumes_does_not_go_unless_it_is_forced_to() -> None:
    store = scene()
    add(store, "v1", OTHER)
    said = refused(store, LeaveMember(OTHER))
    assert said == "Node still has the following custom volumes: v1"
    store.run(LeaveMember(OTHER, forced=True))
    store.run(RemoveMember(OTHER))
    assert not store.state.rows(VOLUMES)


def test_a_project_with_volumes_is_not_empty_and_is_held_to_its_disk() -> None:
    store = scene()
    add(store, "v1", project="own")
    assert refused(store, DeleteProject("own")) == "Only empty projects can be removed"
    config = {"features.storage.volumes": "true", "limits.disk": "1GiB"}
    assert 'has no "size" config set' in refused(store, UpdateProject("own", "", config))


def test_a_volume_is_told_of_from_when_it_is_there() -> None:
    store = scene()
    heard: list[Lifecycle] = []
    store.watch(lambda applied: heard.extend(all_events(applied.changes)))
    id = add(store, "v1")
    store.run(RenameVolume(id, "v2", "default"))
    store.run(DropVolume(id))
    store.run(ForgetVolume(id))
    store.run(CreateVolume(StorageVolume("x", "p1", "default", "failed", MEMBER_ID)))
    store.run(DropVolume("x"))
    store.run(ForgetVolume("x"))
    url = "/1.0/storage-pools/p1/volumes/custom/"
    assert [(event.action, event.source, event.context) for event in heard] == [
        ("storage-volume-created", f"{url}v1", {"type": "custom"}),
        ("storage-volume-renamed", f"{url}v2", {"old_name": "v1"}),
        ("storage-volume-deleted", f"{url}v2", {}),
    ]
