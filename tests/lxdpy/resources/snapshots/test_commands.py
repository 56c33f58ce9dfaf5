"""What becomes of snapshots' rows, and what clients hear of it."""

from typing import Any

import pytest

from cluster.errors import AlreadyExists, Conflict, NotFound
from cluster.state.command import Command
from lxdpy.resources.instances.commands import (
    CreateInstance,
    DeleteInstance,
    RenameInstance,
    SetInstanceStatus,
)
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.instances.rendered import Rendered
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.snapshots.commands import (
    RESTORING,
    CreateSnapshot,
    DeleteSnapshot,
    ExpireSnapshot,
    FinishSnapshot,
    RemoveSnapshot,
    RenameSnapshot,
    RestoreInstance,
)
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot, snapshots_of
from lxdpy.resources.storage_pools.model import POOLS, Pool
from tests.lxdpy.fakes import MEMBER_ID, LocalStore

S0 = Snapshot("default", "c1", "s0", "id0", created_at=1.0, config={"user.a": "1"}, description="then")
KEY = "default/c1"


class Scene:
    """A member with a stopped instance c1, and the events of what is done to it."""

    def __init__(self) -> None:
        self.store = LocalStore()
        self.store.put(PROJECTS, "default", Project("default", config={"features.profiles": "true"}))
        self.store.put(POOLS, "default", Pool("default", "dir", status="Created"))
        self.run(CreateInstance(Instance("default", "c1", "u1", MEMBER_ID)))
        self.run(SetInstanceStatus(KEY, MEMBER_ID, "Stopped"))
        self.told: list[str] = []
        self.store.watch(self._hear)

    def _hear(self, applied: Any) -> None:
        self.told += [f"{event.action} {event.source}" for event in all_events(applied.changes)]

    def run(self, *commands: Command) -> None:
        for command in commands:
            self.store.run(command)

    def take(self, snapshot: Snapshot = S0) -> None:
        self.run(CreateSnapshot(snapshot, MEMBER_ID), FinishSnapshot(snapshot.key, snapshot.id))

    def names(self, instance: str = KEY) -> list[str]:
        return [row.name for row in snapshots_of(self.store.state, instance)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_snapshot_is_there_once_its_files_are_and_gone_before_they_are(scene: Scene) -> None:
    scene.run(CreateSnapshot(S0, MEMBER_ID))
    assert (scene.names(), scene.told) == ([], [])
    scene.run(FinishSnapshot(S0.key, "id0"))
    assert scene.names() == ["s0"]
    scene.run(RemoveSnapshot(S0.key, "id0"))
    assert scene.names() == []
    scene.run(DeleteSnapshot(S0.key, "id0"), DeleteSnapshot(S0.key, "id0"))
    assert not scene.store.state.rows(SNAPSHOTS)
    source = "/1.0/instances/c1/snapshots/s0"
    assert scene.told == [f"instance-snapshot-{verb} {source}" for verb in ("created", "deleted")]


def test_a_name_is_taken_as_soon_as_it_is_announced(scene: Scene) -> None:
    scene.run(CreateSnapshot(S0, MEMBER_ID))
    with pytest.raises(AlreadyExists, match='Snapshot "c1/s0" already exists'):
        scene.run(CreateSnapshot(S0, MEMBER_ID))


def test_what_is_meant_for_one_snapshot_does_not_strike_the_next_of_its_name(scene: Scene) -> None:
    scene.take()
    with pytest.raises(Conflict):
        scene.run(RemoveSnapshot(S0.key, "another"))
    scene.run(DeleteSnapshot(S0.key, "another"))
    assert scene.names() == ["s0"]


def test_only_the_owner_makes_snapshots(scene: Scene) -> None:
    with pytest.raises(Conflict):
        scene.run(CreateSnapshot(S0, "ffffffffffff"))
    with pytest.raises(NotFound):
        scene.run(CreateSnapshot(Snapshot("default", "c2", "s0", "x"), MEMBER_ID))


def test_snapshots_are_renamed_and_expire(scene: Scene) -> None:
    scene.take()
    scene.run(RenameSnapshot(S0.key, "s1"), ExpireSnapshot(f"{KEY}/s1", 99.0))
    assert scene.store.state.get(SNAPSHOTS, f"{KEY}/s1").expires_at == 99.0
    scene.take()
    with pytest.raises(AlreadyExists, match="Name 'c1/s1' already in use"):
        scene.run(RenameSnapshot(S0.key, "s1"))
    path = "/1.0/instances/c1/snapshots"
    assert scene.told[1:3] == [f"instance-snapshot-{v} {path}/s1" for v in ("renamed", "updated")]


def test_snapshots_go_where_their_instance_goes(scene: Scene) -> None:
    scene.take()
    scene.take(Snapshot("default", "c1", "s1", "id1", created_at=2.0))
    scene.told.clear()
    scene.run(RenameInstance(KEY, "c2"))
    assert (scene.names(), scene.names("default/c2")) == ([], ["s0", "s1"])
    scene.run(SetInstanceStatus("default/c2", MEMBER_ID, "Stopped", {"volatile.renamed_from": ""}))
    scene.run(DeleteInstance("default/c2", "u1"))
    assert not scene.store.state.rows(SNAPSHOTS)
    assert scene.told == ["instance-renamed /1.0/instances/c2", "instance-deleted /1.0/instances/c2"]


def test_a_restore_brings_the_config_back_but_not_the_daemons_notes(scene: Scene) -> None:
    scene.take(S0)
    notes = {"volatile.eth0.host_name": "veth1", RESTORING: "s0"}
    scene.run(SetInstanceStatus(KEY, MEMBER_ID, "Stopped", notes))
    with pytest.raises(Conflict):
        scene.run(RestoreInstance(KEY, MEMBER_ID, "s1"))
    scene.run(RestoreInstance(KEY, MEMBER_ID, "s0"))
    row = scene.store.state.get(INSTANCES, KEY)
    assert row.config == {"user.a": "1", "volatile.eth0.host_name": "veth1"}
    assert row.description == "then"
    assert scene.told[-1] == "instance-restored /1.0/instances/c1"


def test_a_restore_that_was_given_up_is_not_told(scene: Scene) -> None:
    scene.take()
    scene.told.clear()
    for note in ("s0", ""):
        scene.run(SetInstanceStatus(KEY, MEMBER_ID, "Stopped", {RESTORING: note}))
    assert scene.told == []


def test_lists_show_snapshots_as_they_are_by_now(scene: Scene) -> None:
    scene.store.put(PROFILES, "default/p1", Profile("default", "p1", config={"user.p": "old"}))
    scene.take(Snapshot("default", "c1", "s0", "id0", profiles=("p1",)))
    rendered, row = Rendered(), scene.store.state.get(INSTANCES, KEY)

    def full() -> str:
        return bytes(rendered.full(scene.store.state, row, b"{}")).decode()  # type: ignore[arg-type]

    assert '"name":"s0"' in full()
    scene.store.put(PROFILES, "default/p1", Profile("default", "p1", config={"user.p": "new"}))
    assert '"user.p":"new"' in full()
    scene.run(RemoveSnapshot(f"{KEY}/s0", "id0"))
    assert full().endswith('"snapshots":null}')
