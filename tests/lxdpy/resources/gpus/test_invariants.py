"""What holds of the GPU ledger at every index of the log, whatever is asked of it, in whatever order.

The asks are not a scheduler's: anything may be wished for, as from one that knows nothing, or is out of date.
"""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.membership.commands import CreateToken, EnableCluster, FoundCluster, JoinMember, ReadyMember
from cluster.membership.model import Cluster, Member, Token
from cluster.state.command import Command, entry_of
from cluster.state.machine import Outcome, digest
from cluster.state.txn import Change
from lxdpy.resources.gpus.commands import DrainGpu, Grant, ReportGpus, granted, parts_of
from lxdpy.resources.gpus.model import GPUS, GpuRow, Holder
from lxdpy.resources.gpus.usage import USAGE, Usage, way_of
from lxdpy.resources.instances.commands import (
    CreateInstance,
    DeleteInstance,
    ReleaseGrants,
    RenameInstance,
    SetInstanceStatus,
    StartInstance,
    UpdateInstance,
)
from lxdpy.resources.instances.model import INSTANCES, PARKED, Instance
from lxdpy.resources.parking.commands import ParkInstance, RenewLease, UnparkInstance, WarnOfLease
from lxdpy.resources.profiles.commands import CreateProfile
from lxdpy.resources.profiles.model import Profile
from lxdpy.resources.projects.commands import CreateProject, UpdateProject
from lxdpy.resources.projects.limits import gpus as held_by_project
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.server.commands import CreateDefaults
from lxdpy.resources.storage_pools.commands import CreatePool
from lxdpy.resources.storage_pools.model import Pool, PoolMember
from lxdpy.resources.tables import new_machine
from tests.effort import examples

GIB = 2**30
ONE, TWO = "000000000001", "000000000002"
MEMBERS = st.sampled_from([ONE, TWO])
PROJECTS_USED = ("default", "lab")
NAMES = st.sampled_from([f"{project}/c{n}" for project in PROJECTS_USED for n in range(3)])
OWN = {ONE: ("a1", "a2", "cut"), TWO: ("b1", "b2")}  # cards of each member
PARTS = ("m1", "m2")  # of `cut`
ALL = (*OWN[ONE], *OWN[TWO], *PARTS)
UUIDS = st.lists(st.sampled_from(ALL), max_size=3)
SHARING = st.sampled_from(["exclusive", "exclusive", "shared"])
HEALTH = st.sampled_from(["ok", "ok", "ok", "suspect", "failed", "recovering"])


def card(uuid: str, member: str, **known: Any) -> GpuRow:
    return GpuRow(uuid=uuid, member=member, vendor="nvidia", model="A100", memory=16 * GIB, **known)


def part(uuid: str, member: str, **known: Any) -> GpuRow:
    return card(uuid, member, parent="cut", gi=PARTS.index(uuid), ci=0, profile="1g.5gb", **known)


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = new_machine()
        self.entries: list[bytes] = []
        self.now = 1000.0
        self.accounts: dict[str, Counter[str]] = {}  # GPU-seconds by instance and way, counted from changes
        self.ended: dict[str, float] = {}  # when the last hold of a card ended

    @initialize()
    def found(self) -> None:
        self.do(FoundCluster(Cluster("c"), Member(ONE, "none", status="ready", fingerprint="1")))
        self.do(CreateDefaults())
        self.do(EnableCluster(ONE, "n1", "n1:1", "certificate", "key"))
        self.do(CreateToken(Token("t", "member", "n2", "secret", 0.0)))
        self.do(JoinMember("secret", Member(TWO, "n2", address="n2:1", fingerprint="2")))
        self.do(ReadyMember(TWO))
        self.do(CreatePool(Pool("default", "dir", members={ONE: PoolMember(), TWO: PoolMember()})))
        assert (
            self.do(
                CreateProject(Project("lab", config={"features.profiles": "true", "limits.gpu": "2"}))
            ).error
            is None
        )
        self.do(CreateProfile(Profile("lab", "default")))
        for member in (ONE, TWO):
            self.do(ReportGpus(member, tuple(card(uuid, member) for uuid in OWN[member])))

    def do(self, command: Command) -> Outcome:
        index = len(self.entries) + 1
        entry = entry_of(command, request_id=str(index), proposer=ONE, proposed_at=self.now)
        self.entries.append(entry)
        before = self.machine.state
        outcome = self.machine.apply(index, entry)
        assert outcome.error is None or outcome.error.kind != "internal", outcome.error
        if outcome.error:
            assert self.machine.state.tables == before.tables
        renamed = isinstance(command, RenameInstance) and outcome.error is None
        if renamed:
            self._rename(command.key, f"{command.key.partition('/')[0]}/{command.name}")  # type: ignore[attr-defined]
        for change in outcome.changes:
            if change.table == "gpus" and not renamed:
                self._changed(change)
        return outcome

    def _changed(self, change: Change) -> None:
        """New holds begin on cards that may be granted, and after the last one ended."""
        before, after = change.before, change.after
        had = {(h.instance, h.device): h for h in before.holders} if before else {}
        has = {(h.instance, h.device): h for h in after.holders} if after else {}
        for key in had.keys() - has.keys():
            self._ended(before, had[key])
        for key in has.keys() - had.keys():
            assert before is not None
            assert (before.health, before.missing, before.draining) == ("ok", False, False)
            assert not before.claimed_by
            assert not before.partitioned
            assert has[key].since >= self.ended.get(before.uuid, 0.0)
        for key in has.keys() & had.keys():
            assert has[key].since == had[key].since

    def _ended(self, row: GpuRow, holder: Holder) -> None:
        end = max(self.now, holder.since)
        self.accounts.setdefault(holder.instance, Counter())[way_of(row, holder)] += end - holder.since  # type: ignore[assignment]
        self.ended[row.uuid] = max(end, self.ended.get(row.uuid, 0.0))

    def _rename(self, before: str, after: str) -> None:
        if before in self.accounts:
            self.accounts.setdefault(after, Counter()).update(self.accounts.pop(before))

    # What may happen.

    @rule(seconds=st.integers(-50, 500))
    def time_goes_by_but_clocks_differ(self, seconds: int) -> None:
        self.now = max(1000.0, self.now + seconds)

    @rule(
        member=MEMBERS,
        seen=st.sets(st.sampled_from(ALL), min_size=1),
        health=HEALTH,
        cut=st.booleans(),
        strangers=st.booleans(),
    )
    def report(self, member: str, seen: set[str], health: Any, cut: bool, strangers: bool) -> None:
        cards = [uuid for uuid in sorted(seen) if uuid in OWN[member] or (strangers and uuid not in PARTS)]
        rows = [card(uuid, member, health=health, partitioned=cut and uuid == "cut") for uuid in cards]
        if cut and member == ONE and "cut" in cards:
            rows += [part(uuid, member, health=health) for uuid in PARTS if uuid in seen]
        self.do(ReportGpus(member, tuple(rows)))

    @rule()
    def all_is_well(self) -> None:
        for member in (ONE, TWO):
            self.do(ReportGpus(member, tuple(card(uuid, member) for uuid in OWN[member])))

    @rule()
    def all_is_cut(self) -> None:
        rows = [card(uuid, ONE, partitioned=uuid == "cut") for uuid in OWN[ONE]]
        self.do(ReportGpus(ONE, (*rows, *(part(uuid, ONE) for uuid in PARTS))))

    @rule(uuid=st.sampled_from(ALL), draining=st.booleans())
    def drain(self, uuid: str, draining: bool) -> None:
        self.do(DrainGpu(uuid, draining))

    @rule(key=NAMES, member=MEMBERS, uuids=UUIDS, sharing=SHARING, memory=st.sampled_from([0, 6, 12]))
    def create(self, key: str, member: str, uuids: list[str], sharing: Any, memory: int) -> None:
        project, _, name = key.partition("/")
        row = Instance(project=project, name=name, uuid=key, location=member, profiles=("default",))
        wishes = [Grant(f"gpu{n}", uuid, sharing, memory * GIB) for n, uuid in enumerate(uuids)]
        outcome = self.do(CreateInstance(row, tuple(wishes)))
        if outcome.error is None:
            self.do(SetInstanceStatus(key, member, "Stopped"))

    @rule(
        key=NAMES, uuid=st.sampled_from(["cut", "cut", "m1", "m2"]), then=st.sampled_from(["cut", "lost", ""])
    )
    def create_on_a_card_that_is_cut_or_lost_then(self, key: str, uuid: str, then: str) -> None:
        self.create(key, ONE, [uuid], "exclusive", 0)
        if then:
            rows = [card(other, ONE) for other in ("a1", "a2")]
            parts = [card("cut", ONE, partitioned=True), *(part(each, ONE) for each in PARTS)]
            self.do(ReportGpus(ONE, (*rows, *(parts if then == "cut" else ()))))

    @rule(key=NAMES, uuids=UUIDS, sharing=SHARING, member=MEMBERS, runs=st.booleans())
    def start(self, key: str, uuids: list[str], sharing: Any, member: str, runs: bool) -> None:
        wishes = tuple(Grant("gpu0", uuid, sharing) for uuid in sorted(set(uuids)))
        if self.do(StartInstance(key, member, wishes)).error is None and runs:
            self.do(SetInstanceStatus(key, member, "Running"))

    @rule(
        key=NAMES, member=MEMBERS, hold=st.booleans(), status=st.sampled_from(["Stopped", "Error", "Frozen"])
    )
    def stop(self, key: str, member: str, hold: bool, status: Any) -> None:
        self.do(SetInstanceStatus(key, member, status, hold=hold))

    @rule(key=NAMES, uuids=UUIDS, sharing=SHARING)
    def update(self, key: str, uuids: list[str], sharing: Any) -> None:
        row = self.machine.state.find(INSTANCES, key)
        if row is not None:
            wishes = tuple(Grant("gpu1", uuid, sharing) for uuid in sorted(set(uuids)))
            self.do(UpdateInstance(key, "", row.config, row.devices, row.profiles, False, grants=wishes))

    @rule(key=NAMES, member=MEMBERS)
    def park(self, key: str, member: str) -> None:
        self.do(ParkInstance(key, member))

    @rule(key=NAMES, uuids=UUIDS, sharing=SHARING, member=MEMBERS, other=NAMES)
    def park_and_unpark(self, key: str, uuids: list[str], sharing: Any, member: str, other: str) -> None:
        """Others may have been given them in between."""
        self.do(SetInstanceStatus(key, member, "Running"))
        self.do(ParkInstance(key, member))
        self.start(other, uuids, sharing, member, True)
        wishes = tuple(Grant("gpu0", uuid, sharing) for uuid in sorted(set(uuids)))
        self.do(UnparkInstance(key, member, wishes))

    @rule(key=NAMES, member=MEMBERS, renew=st.booleans())
    def lease(self, key: str, member: str, renew: bool) -> None:
        self.do(RenewLease(key) if renew else WarnOfLease(key, member, self.now))

    @rule(key=NAMES, number=st.integers(0, 2))
    def rename(self, key: str, number: int) -> None:
        self.do(RenameInstance(key, f"c{number}"))

    @rule(key=NAMES)
    def give_back(self, key: str) -> None:
        self.do(ReleaseGrants(key))

    @rule(key=NAMES)
    def delete(self, key: str) -> None:
        self.do(DeleteInstance(key, key))

    @rule(most=st.sampled_from(["", "0", "1", "2", "9"]))
    def limit(self, most: str) -> None:
        config = {"features.profiles": "true"} | ({"limits.gpu": most} if most else {})
        self.do(UpdateProject("lab", "", config))

    @rule(place=st.integers(0, 500))
    def ask_again(self, place: int) -> None:
        """I4: what was asked before, under the same id, changes nothing and is answered as before."""
        before = self.machine.state.tables
        index = len(self.entries) + 1
        self.entries.append(self.entries[place % len(self.entries)])
        self.machine.apply(index, self.entries[-1])
        assert self.machine.state.tables == before

    # What holds all the while.

    def rows(self) -> list[GpuRow]:
        return list(self.machine.state.rows(GPUS).values())

    @invariant()
    def one_exclusive_holder_and_nobody_beside_it_nor_on_its_parts(self) -> None:
        """I1."""
        for row in self.rows():
            if any(holder.sharing == "exclusive" for holder in row.holders):
                assert len(row.holders) == 1
            if row.holders and row.parts:
                assert not any(each.holders for each in parts_of(self.machine.state, row.uuid))

    @invariant()
    def what_is_reserved_is_there(self) -> None:
        """I2."""
        for row in self.rows():
            assert sum(holder.memory for holder in row.holders) <= row.memory

    @invariant()
    def no_project_has_more_than_it_may(self) -> None:
        """I7."""
        project = self.machine.state.find(PROJECTS, "lab")
        if project and "limits.gpu" in project.config:
            assert held_by_project(self.machine.state, "lab") <= int(project.config["limits.gpu"])

    @invariant()
    def the_ledger_and_the_instances_agree(self) -> None:
        state = self.machine.state
        held = {(h.instance, h.device, row.uuid) for row in self.rows() for h in row.holders}
        shown = {
            (key, device, uuid)
            for key, row in state.rows(INSTANCES).items()
            for device, uuids in granted(row.config).items()
            for uuid in uuids
        }
        assert held == shown
        for row in self.rows():
            for holder in row.holders:
                assert state.get(INSTANCES, holder.instance).location == row.member

    @invariant()
    def who_has_parked_its_gpus_runs_and_holds_none(self) -> None:
        for row in self.machine.state.rows(INSTANCES).values():
            if PARKED in row.config:
                assert row.status in ("Running", "Frozen")
                assert not granted(row.config)

    @invariant()
    def every_card_is_in_one_state_and_none_is_lost_from_sight(self) -> None:
        """I10, I15."""
        counted = Counter(row.state for row in self.rows())
        assert sum(counted.values()) == len(self.rows())
        for row in self.rows():
            assert not row.missing or row.holders or row.parts, "nobody misses it"
            assert not row.parent or row.uuid in self.machine.state.get(GPUS, row.parent).parts
            assert all(self.machine.state.get(GPUS, each).parent == row.uuid for each in row.parts)

    @invariant()
    def the_time_of_every_hold_is_counted_once(self) -> None:
        """I15."""
        for key, counted in self.accounts.items():
            usage = self.machine.state.find(USAGE, key) or Usage()
            for way, seconds in counted.items():
                assert abs(getattr(usage, way) - seconds) < 1e-6
        assert set(self.machine.state.rows(USAGE)) == set(self.accounts)

    def teardown(self) -> None:
        """I3: another member that applies the same, or begins half way from a snapshot, has the same."""
        again, half = new_machine(), len(self.entries) // 2
        for index, entry in enumerate(self.entries, 1):
            if index == half:
                late = new_machine()
                late.load([*again.dump_chunks(again.state, again.remembered())])
                again = late
            again.apply(index, entry)
        assert digest(again.state) == digest(self.machine.state)
        assert msgspec.json.encode(again.state.index) == msgspec.json.encode(self.machine.state.index)


Ledger.TestCase.settings = examples(80, stateful_step_count=30)
TestLedger = Ledger.TestCase
