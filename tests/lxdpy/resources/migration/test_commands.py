"""What becomes of an instance's row, and of what lies about, while it is moved."""

from typing import Any

import pytest

from cluster.errors import Conflict, Invalid
from cluster.membership.model import MEMBERS, Member
from cluster.state.command import Command
from lxdpy.resources.cluster.commands import NameMember
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.gpus.model import GPUS, GpuRow, Holder
from lxdpy.resources.instances.commands import (
    CreateInstance,
    DeleteInstance,
    RenameInstance,
    SetInstanceStatus,
)
from lxdpy.resources.instances.model import INSTANCES, Instance, Move
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.migration.commands import (
    ORIGIN,
    AbortMove,
    BeginMove,
    CancelReservation,
    FinishMove,
    ForgetResidue,
    ReserveMove,
)
from lxdpy.resources.migration.model import RESIDUES
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.snapshots.commands import CreateSnapshot, FinishSnapshot
from lxdpy.resources.snapshots.model import SNAPSHOTS, Snapshot
from lxdpy.resources.storage_pools.commands import DeletePool
from lxdpy.resources.storage_pools.model import POOLS, Pool
from tests.lxdpy.fakes import MEMBER_ID, LocalStore

OTHER = "ba9876543210"
KEY = "default/c1"
ROOT = {"root": {"type": "disk", "path": "/", "pool": "p1"}}
AWAY = Move("op1", OTHER, "p1")


@pytest.fixture
def store() -> LocalStore:
    """Two members, pools p1 and p2; c1 is stopped, in p1 by its profile, and has a snapshot."""
    store = LocalStore()
    store.put(MEMBERS, OTHER, Member(OTHER, "n2", status="ready"))
    store.put(PROJECTS, "default", Project("default", config={"features.profiles": "true"}))
    store.put(PROFILES, "default/default", Profile("default", "default", devices=ROOT))
    for pool in ("p1", "p2"):
        store.put(POOLS, pool, Pool(pool, "dir", status="Created"))
    row = Instance("default", "c1", "u1", MEMBER_ID, pool="p1", profiles=("default",))
    snapshot = Snapshot("default", "c1", "s0", "id0", profiles=("default",))
    run(store, CreateInstance(row), SetInstanceStatus(KEY, MEMBER_ID, "Stopped"))
    run(store, CreateSnapshot(snapshot, MEMBER_ID), FinishSnapshot(snapshot.key, "id0"))
    return store


def run(store: LocalStore, *commands: Command) -> Instance:
    for command in commands:
        store.run(command)
    return store.state.get(INSTANCES, KEY)


def residues(store: LocalStore) -> list[str]:
    return sorted(store.state.rows(RESIDUES))


def test_a_move_ends_at_the_other_member_and_leaves_files_here(store: LocalStore) -> None:
    told: list[str] = []
    store.watch(lambda applied: told.extend(event.action for event in all_events(applied.changes)))
    assert run(store, BeginMove(KEY, MEMBER_ID, AWAY)).location == MEMBER_ID
    row = run(store, FinishMove(KEY, "op1"))
    assert (row.location, row.pool, row.move) == (OTHER, "p1", None)
    assert residues(store) == [f"{MEMBER_ID}/p1/{KEY}"]
    run(store, ForgetResidue(residues(store)[0]), ForgetResidue(f"{MEMBER_ID}/p1/{KEY}"))
    assert residues(store) == []
    assert told == ["instance-updated"]


def test_an_aborted_move_leaves_the_instance_here_and_files_there(store: LocalStore) -> None:
    row = run(store, BeginMove(KEY, MEMBER_ID, AWAY), AbortMove(KEY, "op1", "full"))
    assert (row.location, row.move, row.stayed) == (MEMBER_ID, None, "full")
    assert residues(store) == [f"{OTHER}/p1/{KEY}"]
    for late in (FinishMove(KEY, "op1"), AbortMove(KEY, "op1", "again")):
        with pytest.raises(Conflict):
            run(store, late)
    run(store, BeginMove(KEY, MEMBER_ID, Move("op2", OTHER, "p1")))
    assert residues(store) == []  # what is there is being replaced, and must not be removed


def test_a_move_to_another_pool_takes_the_root_disk_along(store: LocalStore) -> None:
    run(store, BeginMove(KEY, MEMBER_ID, Move("op1", MEMBER_ID, "p2")))
    row = run(store, FinishMove(KEY, "op1"))
    moved = {"root": {**ROOT["root"], "pool": "p2"}}
    assert (row.location, row.pool, row.devices) == (MEMBER_ID, "p2", moved)
    assert store.state.get(SNAPSHOTS, f"{KEY}/s0").devices == moved
    assert residues(store) == [f"{MEMBER_ID}/p1/{KEY}"]


def test_no_pool_is_deleted_that_an_instance_is_on_its_way_to(store: LocalStore) -> None:
    run(store, BeginMove(KEY, MEMBER_ID, Move("op1", MEMBER_ID, "p2")))
    with pytest.raises(Invalid, match="in use"):
        run(store, DeletePool("p2"))
    run(store, AbortMove(KEY, "op1", "full"), DeletePool("p2"))


@pytest.mark.parametrize(
    "change", [{"status": "Running"}, {"config": {"volatile.restoring": "s0"}}, {"move": AWAY}]
)
def test_only_what_is_at_rest_is_moved(store: LocalStore, change: dict[str, Any]) -> None:
    row = store.state.get(INSTANCES, KEY)
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    store.put(INSTANCES, KEY, Instance(**{**fields, **change}))
    with pytest.raises(Conflict):
        run(store, BeginMove(KEY, MEMBER_ID, AWAY))


def test_a_move_to_where_it_is_is_refused(store: LocalStore) -> None:
    with pytest.raises(Invalid):
        run(store, BeginMove(KEY, MEMBER_ID, Move("op1", MEMBER_ID, "p1")))


def test_gpus_stay_with_their_member(store: LocalStore) -> None:
    gpu = GpuRow("GPU-1", MEMBER_ID, "nvidia", "A100", 1, holders=(Holder(KEY, "gpu0", "exclusive", 1.0),))
    store.put(GPUS, "GPU-1", gpu)
    run(store, SetInstanceStatus(KEY, MEMBER_ID, "Stopped", {"volatile.gpu0.gpu.uuids": "GPU-1"}, hold=True))
    row = run(store, BeginMove(KEY, MEMBER_ID, AWAY), FinishMove(KEY, "op1"))
    assert "volatile.gpu0.gpu.uuids" not in row.config
    assert store.state.get(GPUS, "GPU-1").holders == ()


def test_what_moves_to_another_project_takes_its_snapshots_along(store: LocalStore) -> None:
    store.put(PROJECTS, "p", Project("p"))  # with the default project's profiles
    store.run(RenameInstance(KEY, "c2", "p"))
    assert store.state.get(INSTANCES, "p/c2").config["volatile.renamed_from"] == "c1"
    assert list(store.state.rows(SNAPSHOTS)) == ["p/c2/s0"]


KEPT = Move("op1", OTHER, "p1", grants=(Grant("gpu0", "GPU-2"),), start=True, evacuated="n1")
NOTE = "volatile.gpu0.gpu.uuids"


def reserved(store: LocalStore) -> Instance:
    """c1 runs with GPU-1, while GPU-2 of the other member is kept for it."""
    hold = Holder(KEY, "gpu0", "exclusive", 1.0, started=True)
    store.put(GPUS, "GPU-1", GpuRow("GPU-1", MEMBER_ID, "nvidia", "A100", 1, holders=(hold,)))
    store.put(GPUS, "GPU-2", GpuRow("GPU-2", OTHER, "nvidia", "A100", 1))
    return run(
        store,
        SetInstanceStatus(KEY, MEMBER_ID, "Running", {NOTE: "GPU-1"}),
        ReserveMove(KEY, MEMBER_ID, KEPT),
    )


def held(store: LocalStore) -> list[str]:
    return sorted(gpu.uuid for gpu in store.state.rows(GPUS).values() for _ in gpu.holders)


def test_a_gpu_is_kept_elsewhere_while_the_instance_runs_on_with_its_own(store: LocalStore) -> None:
    row = reserved(store)
    assert (row.status, row.config[NOTE], held(store)) == ("Running", "GPU-1", ["GPU-1", "GPU-2"])
    other = Instance("default", "c2", "u2", OTHER, pool="p1")
    with pytest.raises(Conflict, match="held by c1"):
        store.run(CreateInstance(other, (Grant("gpu0", "GPU-2"),)))


def test_what_was_kept_is_had_at_the_end_of_the_move(store: LocalStore) -> None:
    reserved(store)
    run(store, SetInstanceStatus(KEY, MEMBER_ID, "Stopped"), BeginMove(KEY, MEMBER_ID, KEPT))
    row = run(store, FinishMove(KEY, "op1", KEPT.grants))
    assert (row.location, row.reserved, row.config[NOTE], held(store)) == (OTHER, None, "GPU-2", ["GPU-2"])
    notes = ("volatile.evacuate.origin", "volatile.last_state.power")
    assert [row.config[note] for note in notes] == ["n1", "RUNNING"]
    run(store, BeginMove(KEY, OTHER, Move("op2", OTHER, "p2")))
    assert run(store, FinishMove(KEY, "op2")).config[notes[0]] == "n1"
    run(store, BeginMove(KEY, OTHER, Move("op3", MEMBER_ID, "p2")))
    assert notes[0] not in run(store, FinishMove(KEY, "op3")).config


def test_who_is_away_goes_back_to_the_member_under_its_new_name(store: LocalStore) -> None:
    reserved(store)
    run(store, NameMember(MEMBER_ID, "n1"), SetInstanceStatus(KEY, MEMBER_ID, "Stopped"))
    run(store, BeginMove(KEY, MEMBER_ID, KEPT), NameMember(MEMBER_ID, "n8"))
    assert run(store, FinishMove(KEY, "op1", KEPT.grants)).config[ORIGIN] == "n8"
    assert run(store, NameMember(MEMBER_ID, "n9")).config[ORIGIN] == "n9"


@pytest.mark.parametrize("end", [CancelReservation(KEY, MEMBER_ID), DeleteInstance(KEY, "u1")])
def test_what_was_kept_in_vain_is_free_again(store: LocalStore, end: Command) -> None:
    reserved(store)
    store.run(end)
    assert "GPU-2" not in held(store)


def test_an_aborted_move_of_what_ran_tells_its_owner_to_start_it(store: LocalStore) -> None:
    reserved(store)
    run(store, SetInstanceStatus(KEY, MEMBER_ID, "Stopped"), BeginMove(KEY, MEMBER_ID, KEPT))
    row = run(store, AbortMove(KEY, "op1", "lost"))
    assert (row.stayed, row.move, held(store)) == ("lost", None, [])
    assert row.reserved is not None
    assert row.config["volatile.last_state.power"] == "RUNNING"
    assert run(store, CancelReservation(KEY, MEMBER_ID), CancelReservation(KEY, MEMBER_ID)).reserved is None


@pytest.mark.parametrize("move", [KEPT, Move("op2", OTHER, "p2")])
def test_one_place_is_kept_at_a_time(store: LocalStore, move: Move) -> None:
    reserved(store)
    with pytest.raises(Conflict, match="A place is kept"):
        run(store, ReserveMove(KEY, MEMBER_ID, move))
    run(store, SetInstanceStatus(KEY, MEMBER_ID, "Stopped"))
    with pytest.raises(Conflict, match="elsewhere"):
        run(store, BeginMove(KEY, MEMBER_ID, Move("op3", OTHER, "p1")))
