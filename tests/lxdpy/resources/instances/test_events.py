"""What is told of an instance, from the changes of its row."""

from collections.abc import Callable

import msgspec
import pytest

from cluster.state.txn import Change
from lxdpy.resources.instances.commands import (
    DeleteInstance,
    RenameInstance,
    SetInstanceStatus,
    UpdateInstance,
)
from lxdpy.resources.instances.model import INSTANCES, Instance, Status
from lxdpy.resources.lifecycle import Lifecycle, all_events
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.instances.scene import instance, ready_store

KEY = "default/c1"


class Scene:
    """An instance and the events of its last change."""

    def __init__(self, status: Status = "Stopped") -> None:
        self.store: LocalStore = ready_store()
        self.heard: tuple[Change, ...] = ()
        instance(self.store, "c1", status, created_by={"username": "alice"})
        self.store.watch(lambda applied: setattr(self, "heard", applied.changes))

    def to(
        self, status: Status, *, started: bool = False, killed: bool = False, note: str = ""
    ) -> list[Lifecycle]:
        volatile = {"volatile.last_state.power": note} if note else {}
        self.store.now += 1
        self.store.run(SetInstanceStatus(KEY, MEMBER_ID, status, volatile, started=started, killed=killed))
        return [*all_events(self.heard)]

    def changed(self, edit: Callable[[Instance], Instance]) -> list[Lifecycle]:
        new = edit(self.store.state.get(INSTANCES, KEY))
        command = UpdateInstance(KEY, new.description, new.config, new.devices, new.profiles, new.ephemeral)
        self.store.run(command)
        return [*all_events(self.heard)]


def actions(events: list[Lifecycle]) -> list[str]:
    return [event.action for event in events]


@pytest.mark.parametrize(
    ("before", "after", "killed", "action"),
    [
        ("Stopped", "Running", False, "instance-started"),
        ("Error", "Running", False, "instance-started"),
        ("Running", "Stopped", False, "instance-shutdown"),
        ("Running", "Stopped", True, "instance-stopped"),
        ("Frozen", "Stopped", True, "instance-stopped"),
        ("Running", "Frozen", False, "instance-paused"),
        ("Frozen", "Running", False, "instance-resumed"),
    ],
)
def test_what_becomes_of_a_container_is_told_in_lxds_words(
    before: Status, after: Status, killed: bool, action: str
) -> None:
    [event] = Scene(before).to(after, started=after == "Running" and before != "Frozen", killed=killed)
    assert (event.action, event.source, event.location) == (action, "/1.0/instances/c1", MEMBER_ID)


def test_a_restart_is_told_as_one_and_a_report_of_nothing_new_is_not() -> None:
    scene = Scene("Running")
    assert actions(scene.to("Running", started=True)) == ["instance-restarted"]
    assert scene.to("Running", note="RUNNING") == []


def test_it_is_created_when_it_is_built_and_by_whom_it_was_asked_for() -> None:
    [event] = Scene("Creating").to("Stopped")
    assert (event.action, event.context["storage-pool"]) == ("instance-created", "default")
    assert event.requestor == {"username": "alice"}


def test_what_was_never_built_is_never_told() -> None:
    scene = Scene("Creating")
    scene.store.run(DeleteInstance(KEY, "uuid-c1"))
    assert [*all_events(scene.heard)] == []
    scene = Scene()
    scene.store.run(DeleteInstance(KEY, "uuid-c1"))
    assert actions([*all_events(scene.heard)]) == ["instance-deleted"]


def test_a_users_changes_are_told_and_the_daemons_notes_are_not() -> None:
    scene = Scene()
    assert actions(scene.changed(lambda row: msgspec.structs.replace(row, description="d"))) == [
        "instance-updated"
    ]
    assert scene.changed(lambda row: row) == []
    assert scene.to("Stopped", note="STOPPED") == []


def test_a_rename_is_told_once_with_the_old_name() -> None:
    scene = Scene()
    scene.store.run(RenameInstance(KEY, "c2"))
    [event] = all_events(scene.heard)
    assert (event.action, event.source) == ("instance-renamed", "/1.0/instances/c2")
    assert event.context == {"old_name": "c1"}
