"""The GPU ledger: what a grant inside apply() must never allow."""

import msgspec
import pytest

from cluster.membership.commands import FoundCluster
from cluster.membership.model import Cluster, Member
from cluster.state.command import Command, entry_of
from cluster.state.machine import Machine, Outcome
from lxdpy.resources.gpus.commands import DrainGpu, Grant, ReportGpus, preferred
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.gpus.usage import USAGE
from lxdpy.resources.instances.commands import (
    CreateInstance,
    DeleteInstance,
    ReleaseGrants,
    RenameInstance,
    SetInstanceStatus,
    StartInstance,
    UpdateInstance,
)
from lxdpy.resources.instances.model import IDMAPS, INSTANCES, Instance
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools.commands import CreatePool
from lxdpy.resources.storage_pools.model import Pool, PoolMember
from lxdpy.resources.tables import new_machine

GIB = 2**30
ONE, TWO = "000000000001", "000000000002"


class Log:
    """A machine with a request id for every command."""

    def __init__(self) -> None:
        self.machine: Machine = new_machine()
        self.entries: list[bytes] = []
        member = Member(ONE, "none", status="ready")
        self.do(FoundCluster(Cluster("c"), member))
        self.do(CreateDefaults())
        self.do(CreatePool(Pool("default", "dir", members={ONE: PoolMember()})))

    def do(self, command: Command) -> Outcome:
        index = len(self.entries) + 1
        entry = entry_of(command, request_id=str(index), proposer=ONE, proposed_at=float(index))
        self.entries.append(entry)
        return self.machine.apply(index, entry)

    def refused(self, command: Command) -> str:
        error = self.do(command).error
        assert error is not None
        return error.message


def card(uuid: str, member: str = ONE, memory: int = 40 * GIB) -> GpuRow:
    return GpuRow(uuid=uuid, member=member, vendor="nvidia", model="A100", memory=memory)


def create(name: str, *grants: Grant) -> CreateInstance:
    row = Instance(project="default", name=name, uuid=name, location=ONE, profiles=("default",))
    return CreateInstance(row, grants)


@pytest.fixture
def log() -> Log:
    it = Log()
    it.do(ReportGpus(ONE, (card("g1"), card("g2"))))
    return it


def holders(log: Log, uuid: str) -> list[str]:
    return [holder.instance for holder in log.machine.state.get(GPUS, uuid).holders]


def test_two_creates_racing_for_the_last_gpu(log: Log) -> None:
    assert log.do(create("c1", Grant("gpu", "g1"))).error is None
    lost = log.do(create("c2", Grant("gpu", "g1"))).error
    assert lost is not None
    assert (lost.kind, lost.facts["raced"]) == ("conflict", "gpu")
    assert lost.message == "GPU g1 on none is held by c1 (exclusive)"
    assert sorted(log.machine.state.rows(INSTANCES)) == ["default/c1"]
    assert len(log.machine.state.rows(IDMAPS)) == 1
    log.do(DeleteInstance("default/c1", "c1"))
    assert log.do(create("c2", Grant("gpu", "g1"))).error is None


def test_a_create_that_gets_only_one_of_its_two_gpus_gets_none(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g2")))
    log.refused(create("c2", Grant("gpu", "g1"), Grant("gpu", "g2")))
    assert holders(log, "g1") == []


def notes(log: Log, name: str) -> dict[str, str]:
    """What the config says of GPUs."""
    config = log.machine.state.get(INSTANCES, f"default/{name}").config
    return {key: value for key, value in config.items() if ".gpu." in key}


def update(log: Log, name: str, *grants: Grant, **config: str) -> UpdateInstance:
    row = log.machine.state.get(INSTANCES, f"default/{name}")
    return UpdateInstance(row.key, "", config, row.devices, row.profiles, False, grants=grants)


def running(log: Log, name: str, *grants: Grant) -> None:
    log.do(create(name, *grants))
    log.do(SetInstanceStatus(f"default/{name}", ONE, "Stopped"))
    log.do(StartInstance(f"default/{name}", ONE, grants))
    log.do(SetInstanceStatus(f"default/{name}", ONE, "Running"))


def test_a_start_that_is_not_reported_running_has_not_started(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(StartInstance("default/c1", ONE, (Grant("gpu", "g1"),)))
    assert [holder.started for holder in log.machine.state.get(GPUS, "g1").holders] == [False]


def test_one_device_gives_back_and_the_other_keeps_a_gpu_that_both_share(log: Log) -> None:
    running(log, "c1", Grant("a", "g1", "shared"), Grant("b", "g1", "shared"))
    log.do(update(log, "c1", Grant("b", "g1", "shared")))
    assert [holder.device for holder in log.machine.state.get(GPUS, "g1").holders] == ["b"]
    assert notes(log, "c1") == {"volatile.b.gpu.uuids": "g1"}


def test_a_gpu_may_go_from_one_device_of_an_instance_to_another(log: Log) -> None:
    running(log, "c1", Grant("a", "g1"))
    assert log.do(StartInstance("default/c1", ONE, (Grant("b", "g1"),))).error is None
    assert [holder.device for holder in log.machine.state.get(GPUS, "g1").holders] == ["b"]


def test_an_update_of_a_running_instance_holds_what_it_is_granted(log: Log) -> None:
    running(log, "c1", Grant("gpu", "g1"))
    log.do(update(log, "c1", Grant("gpu", "g1"), Grant("gpu", "g2")))
    assert [
        holder.started for uuid in ("g1", "g2") for holder in log.machine.state.get(GPUS, uuid).holders
    ] == [
        True,
        True,
    ]
    assert notes(log, "c1") == {"volatile.gpu.gpu.uuids": "g1,g2"}


def test_an_update_that_loses_the_race_for_a_gpu_changes_nothing(log: Log) -> None:
    running(log, "c1", Grant("gpu", "g1"))
    log.do(create("c2", Grant("gpu", "g2")))
    lost = log.do(update(log, "c1", Grant("gpu", "g2"), **{"user.colour": "red"})).error
    assert lost is not None
    assert "raced" in lost.facts
    assert holders(log, "g1") == ["default/c1"]
    assert "user.colour" not in log.machine.state.get(INSTANCES, "default/c1").config


def test_a_shared_hold_does_not_become_an_exclusive_one_beside_others(log: Log) -> None:
    running(log, "c1", Grant("gpu", "g1", "shared"))
    log.do(create("c2", Grant("gpu", "g1", "shared")))
    assert "held by c2" in log.refused(update(log, "c1", Grant("gpu", "g1")))


def test_time_is_counted_apart_for_each_way_in_which_a_gpu_was_held(log: Log) -> None:
    running(log, "c1", Grant("gpu", "g1", "shared"))
    [first] = log.machine.state.get(GPUS, "g1").holders
    for _ in range(5):
        log.do(create("c1"))  # refused, so only time goes by
    log.do(update(log, "c1", Grant("gpu", "g1", anew=True)))
    [now] = log.machine.state.get(GPUS, "g1").holders
    assert (now.sharing, now.started) == ("exclusive", True)
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    usage = log.machine.state.get(USAGE, "default/c1")
    assert (usage.shared, usage.exclusive) == (now.since - first.since, usage.until - now.since)
    assert usage.shared > 5


def test_gpus_given_back_are_asked_for_first_at_the_next_start(log: Log) -> None:
    running(log, "c1", Grant("gpu", "g2"))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    assert preferred(notes(log, "c1")) == {"gpu": ("g2",)}
    log.do(StartInstance("default/c1", ONE, (Grant("gpu", "g1"),)))
    assert notes(log, "c1") == {"volatile.gpu.gpu.uuids": "g1"}


def test_the_files_of_gpus_given_back_are_not_remembered(log: Log) -> None:
    running(log, "c1", Grant("gpu", "g1"))
    files = {"volatile.gpu.gpu.nodes": "/dev/nvidia0=195:0"}
    log.do(SetInstanceStatus("default/c1", ONE, "Running", files))
    assert notes(log, "c1") == {"volatile.gpu.gpu.uuids": "g1", **files}
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    assert notes(log, "c1") == {"volatile.gpu.gpu.last": "g1"}
    running(log, "c2", Grant("gpu", "g2"))
    log.do(SetInstanceStatus("default/c2", ONE, "Running", files))
    log.do(update(log, "c2", Grant("gpu", "g1")))
    assert notes(log, "c2") == {"volatile.gpu.gpu.uuids": "g1"}


def test_a_renamed_instance_keeps_what_it_holds(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    log.do(RenameInstance("default/c1", "c2"))
    assert holders(log, "g1") == ["default/c2"]
    log.do(ReleaseGrants("default/c2"))
    assert holders(log, "g1") == []


def test_a_stop_gives_back_and_a_start_takes_again(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    assert holders(log, "g1") == ["default/c1"], "built, but not started yet: the grant stays"
    log.do(StartInstance("default/c1", ONE, (Grant("gpu", "g1"),)))
    log.do(SetInstanceStatus("default/c1", ONE, "Running"))
    assert log.machine.state.get(GPUS, "g1").holders[0].started
    log.do(SetInstanceStatus("default/c1", ONE, "Stopped"))
    assert holders(log, "g1") == []


def test_only_the_owner_may_report(log: Log) -> None:
    log.do(create("c1"))
    assert "not on" in log.refused(SetInstanceStatus("default/c1", TWO, "Running"))


def test_a_shared_grant_never_joins_an_exclusive_one_nor_the_reverse(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(create("c2", Grant("gpu", "g2", "shared")))
    assert "held by c1 (exclusive)" in log.refused(create("c3", Grant("gpu", "g1", "shared")))
    assert "held by c2 (shared)" in log.refused(create("c4", Grant("gpu", "g2")))


def test_shared_memory_is_counted(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1", "shared", 30 * GIB)))
    assert "too little memory" in log.refused(create("c2", Grant("gpu", "g1", "shared", 11 * GIB)))
    assert log.do(create("c3", Grant("gpu", "g1", "shared", 10 * GIB))).error is None


def test_a_card_that_vanishes_keeps_its_holder_and_comes_back_to_it(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(ReportGpus(ONE, (card("g2"),)))
    row = log.machine.state.get(GPUS, "g1")
    assert (row.state, holders(log, "g1")) == ("missing", ["default/c1"])
    log.do(ReportGpus(ONE, (card("g1"), card("g2"))))
    assert (log.machine.state.get(GPUS, "g1").state, holders(log, "g1")) == ("exclusive", ["default/c1"])


def test_a_uuid_announced_by_two_members_is_granted_to_nobody(log: Log) -> None:
    log.do(ReportGpus(TWO, (card("g1", TWO),)))
    assert log.machine.state.get(GPUS, "g1").state == "conflict"
    log.refused(create("c1", Grant("gpu", "g1")))
    log.do(ReportGpus(TWO, ()))
    assert log.do(create("c1", Grant("gpu", "g1"))).error is None


def test_a_draining_gpu_is_not_granted_anew_and_keeps_its_holder(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(DrainGpu("g1", True))
    assert holders(log, "g1") == ["default/c1"]
    log.do(DrainGpu("g2", True))
    assert "draining" in log.refused(create("c2", Grant("gpu", "g2")))


def cut(*, whole: bool = False) -> tuple[GpuRow, ...]:
    """A card in MIG mode and its two parts."""
    parent = msgspec.structs.replace(card("g1"), partitioned=not whole)
    parts = (
        msgspec.structs.replace(card(f"m{n}", memory=5 * GIB), parent="g1", gi=n, ci=0, profile="1g.5gb")
        for n in (1, 2)
    )
    return (parent, *parts)


def test_the_parts_of_a_card_are_granted_one_by_one_and_the_card_not_at_all(log: Log) -> None:
    log.do(ReportGpus(ONE, cut()))
    assert log.do(create("c1", Grant("gpu", "m1"))).error is None
    assert "m1 on none is held by c1" in log.refused(create("c2", Grant("gpu", "m1")))
    assert "g1 on none is partitioned" in log.refused(create("c2", Grant("gpu", "g1")))
    assert log.do(create("c2", Grant("gpu", "m2"))).error is None


def test_a_part_of_a_card_that_is_still_held_whole_is_granted_to_nobody(log: Log) -> None:
    log.do(create("c1", Grant("gpu", "g1")))
    log.do(ReportGpus(ONE, cut()))
    assert holders(log, "g1") == ["default/c1"]
    assert "part of a GPU held whole by c1" in log.refused(create("c2", Grant("gpu", "m1")))


def test_a_drained_card_drains_its_parts_those_yet_to_come_too(log: Log) -> None:
    log.do(DrainGpu("g1", True))
    log.do(ReportGpus(ONE, cut()))
    assert "draining" in log.refused(create("c2", Grant("gpu", "m1")))
    log.do(DrainGpu("g1", False))
    assert log.do(create("c2", Grant("gpu", "m1"))).error is None
