"""Each step of the queue is checked again in its apply."""

import msgspec
import pytest

from cluster.scheduler.queue import drained
from lxdpy.resources.cluster.commands import NameMember
from lxdpy.resources.gpu_queue.claims import Standing, standings, steps
from lxdpy.resources.gpu_queue.commands import (
    CreateMany,
    FinishTurn,
    ForgetTurns,
    GrantTurn,
    JoinQueue,
    LeaveQueue,
)
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn
from lxdpy.resources.gpus.commands import Grant, ReportGpus
from lxdpy.resources.gpus.model import GPUS_KEPT
from lxdpy.resources.instances.commands import (
    CreateInstance,
    DeleteInstance,
    RenameInstance,
    SetInstanceStatus,
)
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance, Move
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.migration.commands import BeginMove, FinishMove
from lxdpy.resources.parking.commands import ParkInstance
from lxdpy.resources.projects.commands import UpdateProject
from lxdpy.resources.projects.model import PROJECTS
from lxdpy.resources.storage_pools.commands import CreatePool
from lxdpy.resources.storage_pools.model import Pool, PoolMember
from tests.lxdpy.resources.test_ledger import ONE, Log, card, create, holders

LATE = "{}-0000-4000-8000-000000000001"


@pytest.fixture
def log() -> Log:
    it = Log()
    it.do(ReportGpus(ONE, (card("g1"), card("g2"))))
    return it


def row(name: str, gpus: int = 1, **known: str) -> Instance:
    config = {"limits.gpu": str(gpus), "gpu.wait": "-1"}
    return Instance("default", name, f"{name}-000000000000", "", config=config, profiles=("default",))


def join(log: Log, name: str, gpus: int = 1, priority: int = 0, until: float = 0.0) -> str:
    id = LATE.format(name)
    turn = Turn(id, "default", instances=(row(name, gpus),), priority=priority, until=until)
    assert log.do(JoinQueue(turn)).error is None
    return id


def lead(log: Log, now: float = 0.0) -> list[str]:
    """What a leader proposes, done; in words."""
    done = []
    for command in drained(steps(log.machine.state, lambda _: True, now)):
        assert log.do(command).error is None
        done.append(f"{type(command).__name__} {command.id[:2]}")  # type: ignore[attr-defined]
    return done


def limit(log: Log, most: int) -> None:
    config = log.machine.state.get(PROJECTS, "default").config | {"limits.gpu": str(most)}
    assert log.do(UpdateProject("default", "", config)).error is None


def full(log: Log) -> None:
    log.do(create("h1", Grant("gpu", "g1")))
    log.do(create("h2", Grant("gpu", "g2")))


def test_who_waits_is_served_by_priority_when_a_gpu_comes_free(log: Log) -> None:
    full(log)
    join(log, "w1")
    join(log, "w2", priority=1)
    assert lead(log) == ["KeepGpus w2"]
    assert lead(log) == [], "nothing to do until something changes"
    assert drained(standings(log.machine.state, lambda _: True)) == {
        LATE.format("w2"): Standing(1, "No member fits: none: 0 of 2 GPUs free, 1 wanted"),
        LATE.format("w1"): Standing(2, "No member fits: none: 0 of 2 GPUs free, 1 wanted"),
    }
    log.do(DeleteInstance("default/h1", "h1"))
    assert lead(log) == ["KeepGpus w1", "GrantTurn w2"]
    assert holders(log, "g1") == ["default/w2"]
    granted = log.machine.state.get(INSTANCES, "default/w2")
    assert (granted.status, granted.operation, granted.location) == ("Creating", LATE.format("w2"), ONE)


def test_what_is_kept_goes_to_nobody_behind_the_first(log: Log) -> None:
    log.do(create("h1", Grant("gpu", "g1")))
    first = join(log, "w1", gpus=2)
    small = join(log, "w2")
    assert lead(log) == ["KeepGpus w1"]
    assert "kept for w1" in log.refused(create("c1", Grant("gpu", "g2")))
    placed = msgspec.structs.replace(row("w2"), location=ONE)
    assert "kept for w1" in log.refused(GrantTurn(small, ((Grant("gpu", "g2"),),), (placed,)))
    urgent = join(log, "w3", priority=1)
    assert lead(log) == ["GrantTurn w3"], "it is before the first"
    assert log.machine.state.get(GPU_QUEUE, urgent).status == "granted"
    assert log.do(LeaveQueue(first, "gone")).error is None
    assert not log.machine.state.rows(GPUS_KEPT)


def test_two_leaders_grant_once(log: Log) -> None:
    join(log, "w1")
    [grant] = drained(steps(log.machine.state, lambda _: True, 0.0))
    assert log.do(grant).error is None
    assert "does not wait" in log.refused(grant)
    assert len(holders(log, "g1") + holders(log, "g2")) == 1


def test_a_name_that_waits_is_taken(log: Log) -> None:
    full(log)
    join(log, "w1")
    assert "already exists" in log.refused(create("w1"))
    assert "already exists" in log.refused(JoinQueue(Turn("x", "default", instances=(row("w1"),))))
    log.do(SetInstanceStatus("default/h1", ONE, "Stopped"))
    assert "already in use" in log.refused(RenameInstance("default/h1", "w1"))


def test_several_are_created_all_or_none(log: Log) -> None:
    rows = tuple(msgspec.structs.replace(row(f"c-{n}"), location=ONE) for n in (1, 2))
    log.do(create("h1", Grant("gpu", "g1")))
    turn = Turn(LATE.format("c"), "default", instances=rows)
    grants = ((Grant("gpu", "g2"),), (Grant("gpu", "g1"),))
    assert "held by h1" in log.refused(CreateMany(turn, grants))
    assert set(log.machine.state.rows(INSTANCES)) == {"default/h1"}
    assert not log.machine.state.rows(GPU_QUEUE)
    log.do(DeleteInstance("default/h1", "h1"))
    assert log.do(CreateMany(turn, grants)).error is None
    assert (holders(log, "g1"), holders(log, "g2")) == (["default/c-2"], ["default/c-1"])


def test_the_quota_is_checked_with_the_grant(log: Log) -> None:
    """I7."""
    waits = join(log, "w1")
    [grant] = drained(steps(log.machine.state, lambda _: True, 0.0))
    limit(log, 0)
    assert "limits.gpu" in log.refused(grant)
    assert log.machine.state.get(GPU_QUEUE, waits).status == "waiting"
    assert lead(log) == [], "it waits for its project"
    assert (
        "project default may hold 0 more" in drained(standings(log.machine.state, lambda _: True))[waits].why
    )
    limit(log, 1)
    assert lead(log) == ["GrantTurn w1"]


def test_time_runs_out_with_the_reason(log: Log) -> None:
    full(log)
    late = join(log, "w1", until=50.0)
    assert lead(log, 49.0) == ["KeepGpus w1"]
    assert lead(log, 51.0) == ["LeaveQueue w1"]
    assert "No GPUs came free in time: No member fits" in log.machine.state.get(GPU_QUEUE, late).err
    assert lead(log, 60.0) == []


def test_a_start_waits_for_the_gpus_of_its_member(log: Log) -> None:
    full(log)
    config = {"limits.gpu": "1", "gpu.wait": "-1"}
    stopped = Instance("default", "c1", "c1", ONE, config=config, profiles=("default",))
    log.do(CreateInstance(stopped))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    turn = Turn(LATE.format("s1"), "default", start="default/c1")
    assert log.do(JoinQueue(turn)).error is None
    assert "already waits" in log.refused(JoinQueue(msgspec.structs.replace(turn, id="x")))
    assert lead(log) == ["KeepGpus s1"]
    log.do(RenameInstance("default/c1", "c2"))
    assert lead(log) == ["KeepGpus s1"]
    assert {row.label for row in log.machine.state.rows(GPUS_KEPT).values()} == {"c2"}
    log.do(DeleteInstance("default/h2", "h2"))
    assert lead(log) == ["GrantTurn s1"]
    assert holders(log, "g2") == ["default/c2"]
    granted = log.machine.state.get(GPU_QUEUE, turn.id)
    assert (granted.status, granted.location) == ("granted", ONE)
    log.do(ForgetTurns(1e9))
    assert turn.id in log.machine.state.rows(GPU_QUEUE), "its owner may have to do it again"
    log.do(FinishTurn(turn.id))
    log.do(ForgetTurns(1e9))
    assert turn.id not in log.machine.state.rows(GPU_QUEUE)


def test_a_start_waits_while_its_instance_is_being_moved(log: Log) -> None:
    full(log)
    log.do(create("c1"))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    log.do(CreatePool(Pool("fast", "dir", members={ONE: PoolMember()})))
    turn = Turn(LATE.format("s1"), "default", start="default/c1")
    log.do(JoinQueue(turn))
    log.do(DeleteInstance("default/h2", "h2"))
    assert log.do(BeginMove("default/c1", ONE, Move("op1", ONE, "fast"))).error is None
    assert lead(log) == []
    why = drained(standings(log.machine.state, lambda _: True))[turn.id].why
    assert why == "No member fits: none: has no instance to start: it is being moved"
    log.do(FinishMove("default/c1", "op1"))
    assert lead(log) == ["GrantTurn s1"]


def test_an_unpark_waits_its_turn_and_has_its_gpus_with_the_grant(log: Log) -> None:
    row = Instance("default", "c1", "c1", ONE, config={"limits.gpu": "1"}, profiles=("default",))
    log.do(CreateInstance(row, (Grant("gpu", "g1"),)))
    turn = Turn(LATE.format("u1"), "default", start="default/c1", unparks=True)
    assert "being created" in log.refused(JoinQueue(turn))
    log.do(SetInstanceStatus("default/c1", ONE, "Running", started=True))
    assert "not parked" in log.refused(JoinQueue(turn))
    log.do(ParkInstance("default/c1", ONE))
    full(log)
    assert log.do(JoinQueue(turn)).error is None
    assert "already waits" in log.refused(JoinQueue(msgspec.structs.replace(turn, id="x")))
    assert lead(log) == ["KeepGpus u1"]
    assert "none: 0 of 2 GPUs free" in drained(standings(log.machine.state, lambda _: True))[turn.id].why
    log.do(DeleteInstance("default/h2", "h2"))
    assert lead(log) == ["GrantTurn u1"]
    found = log.machine.state.get(INSTANCES, "default/c1").config
    assert PARKED not in found
    assert (found["volatile.gpu.gpu.uuids"], holders(log, "g2")) == ("g2", ["default/c1"])
    assert log.machine.state.get(GPU_QUEUE, turn.id).location == ONE


@pytest.mark.parametrize("target", ["n9", "@rack"])
def test_who_waits_for_a_member_or_group_that_is_gone_waits_no_more(log: Log, target: str) -> None:
    log.do(JoinQueue(Turn(LATE.format("w1"), "default", instances=(row("w1"),), target=target)))
    assert lead(log) == ["LeaveQueue w1"]
    assert "not found: " in log.machine.state.get(GPU_QUEUE, LATE.format("w1")).err


def test_who_waits_for_a_member_knows_it_by_its_new_name(log: Log) -> None:
    log.do(JoinQueue(Turn(LATE.format("w1"), "default", instances=(row("w1"),), target="none")))
    assert log.do(NameMember(ONE, "n1")).error is None
    assert lead(log) == ["GrantTurn w1"]


def test_an_unpark_of_what_has_stopped_waits_no_more(log: Log) -> None:
    row = Instance("default", "c1", "c1", ONE, config={"limits.gpu": "1"}, profiles=("default",))
    log.do(CreateInstance(row, (Grant("gpu", "g1"),)))
    log.do(SetInstanceStatus("default/c1", ONE, "Running", started=True))
    log.do(ParkInstance("default/c1", ONE))
    full(log)
    turn = Turn(LATE.format("u1"), "default", start="default/c1", unparks=True)
    log.do(JoinQueue(turn))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    assert lead(log) == ["LeaveQueue u1"]
    assert log.machine.state.get(GPU_QUEUE, turn.id).err == "The instance is not running"


def test_the_start_of_what_was_deleted_waits_no_more(log: Log) -> None:
    full(log)
    log.do(SetInstanceStatus("default/h1", ONE, "Running"))
    log.do(create("c1"))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    assert "already running" in log.refused(JoinQueue(Turn("x", "default", start="default/h1")))
    log.do(JoinQueue(Turn(LATE.format("s1"), "default", start="default/c1")))
    log.do(DeleteInstance("default/c1", "c1"))
    assert lead(log) == ["LeaveQueue s1"]


def test_who_comes_is_served_and_leaves_is_told(log: Log) -> None:
    joined = log.do(JoinQueue(Turn(LATE.format("w1"), "default", instances=(row("w1"),))))
    [grant] = drained(steps(log.machine.state, lambda _: True, 0.0))
    granted = log.do(grant)
    log.do(JoinQueue(Turn(LATE.format("w2"), "default", instances=(row("w2"),))))
    left = log.do(LeaveQueue(LATE.format("w2"), "late"))
    told = [event for outcome in (joined, granted, left) for event in all_events(outcome.changes)]
    assert [(event.action, event.context) for event in told] == [
        ("gpu-queue-joined", {"instances": "w1"}),
        ("gpu-queue-granted", {"instances": "w1"}),
        ("gpu-queue-left", {"instances": "w2", "reason": "late"}),
    ]
