"""What holds of the ledger holds with a queue before it, whoever leads, and however old its plans are."""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from cluster.scheduler.queue import drained
from cluster.state.command import Command
from cluster.state.machine import Outcome
from lxdpy.resources.gpu_queue.claims import standings, steps
from lxdpy.resources.gpu_queue.commands import (
    CreateMany,
    FinishTurn,
    ForgetTurns,
    GrantTurn,
    JoinQueue,
    KeepGpus,
    LeaveQueue,
)
from lxdpy.resources.gpu_queue.model import GPU_QUEUE, Turn, waiting
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.gpus.model import GPUS, GPUS_KEPT
from lxdpy.resources.instances.commands import SetInstanceStatus
from lxdpy.resources.instances.model import INSTANCES, Instance
from tests.effort import examples
from tests.lxdpy.resources.gpus.test_invariants import ALL, MEMBERS, NAMES, PROJECTS_USED, Ledger

PLACES = st.integers(0, 5)
IDS = st.integers(0, 9).map(lambda number: f"{number:08x}-0000-4000-8000-000000000001")


def row_of(project: str, name: str, gpus: int, **known: Any) -> Instance:
    config = {"limits.gpu": str(gpus), "gpu.wait": "-1"} if gpus else {}
    uuid = f"{project}-{name}-000000000000"
    return Instance(project, name, uuid, config=config, profiles=("default",), **{"location": "", **known})


class Queue(Ledger):
    # Of these the ledger's own test is full; here they would leave little to wait for.
    report = all_is_cut = create_on_a_card_that_is_cut_or_lost_then = update = ask_again = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.granted: Counter[str] = Counter()
        self.plan: list[Command] = []

    def do(self, command: Command) -> Outcome:
        before = self.machine.state
        outcome = super().do(command)
        order = None
        if isinstance(command, GrantTurn):
            order = before.get(GPU_QUEUE, command.id).order if outcome.error is None else None
        for change in outcome.changes:
            if change.table == "gpu_queue" and change.after is not None and change.after.status == "granted":
                assert change.before is None or change.before.status == "waiting", "granted once"
                self.granted[change.key] += 1
                rows = self.machine.state.rows(INSTANCES)
                assert all(key in rows for key in change.after.keys), "all or none"
            if change.table == "gpus" and change.before is not None and change.after is not None:
                had = {(hold.instance, hold.device) for hold in change.before.holders}
                has = {(hold.instance, hold.device) for hold in change.after.holders}
                kept = before.find(GPUS_KEPT, change.key)
                if kept is not None and has - had and len(outcome.changes) and not self._renames(command):
                    assert order is not None, "kept for another"
                    assert order <= kept.order
        return outcome

    @staticmethod
    def _renames(command: Command) -> bool:
        return type(command).__name__ == "RenameInstance"

    def propose(self, commands: list[Command]) -> None:
        for command in commands:
            self.do(command)
        for row in list(self.machine.state.rows(INSTANCES).values()):
            if row.status == "Creating":
                self.do(SetInstanceStatus(row.key, row.location, "Stopped"))

    @rule(id=IDS, key=NAMES, gpus=st.integers(1, 3), priority=st.integers(0, 1), until=st.integers(0, 2))
    def wait_for_a_create(self, id: str, key: str, gpus: int, priority: int, until: int) -> None:
        project, _, name = key.partition("/")
        until_at = self.now + 100 if until == 1 else 0.0
        row = row_of(project, name, gpus)
        self.do(JoinQueue(Turn(id, project, instances=(row,), priority=priority, until=until_at)))

    @rule(id=IDS, project=st.sampled_from(PROJECTS_USED), gpus=st.integers(1, 2), number=st.integers(2, 3))
    def wait_for_several(self, id: str, project: str, gpus: int, number: int) -> None:
        rows = tuple(row_of(project, f"c{place}", gpus) for place in range(number))
        self.do(JoinQueue(Turn(id, project, instances=rows)))

    @rule(id=IDS, key=NAMES)
    def wait_for_a_start(self, id: str, key: str) -> None:
        self.do(JoinQueue(Turn(id, key.partition("/")[0], start=key)))

    @rule(
        id=IDS,
        project=st.sampled_from(PROJECTS_USED),
        uuids=st.lists(st.sampled_from(ALL), min_size=2, max_size=2),
        homes=st.lists(MEMBERS, min_size=2, max_size=2),
    )
    def create_two_at_once(self, id: str, project: str, uuids: list[str], homes: list[str]) -> None:
        rows = tuple(row_of(project, f"c{n}", 0, location=home) for n, home in enumerate(homes))
        self.propose(
            [CreateMany(Turn(id, project, instances=rows), tuple((Grant("gpu", uuid),) for uuid in uuids))]
        )

    @rule()
    def look(self) -> None:
        """A leader plans, and may be slow to propose it."""
        self.plan = drained(steps(self.machine.state, lambda _: True, self.now))

    @rule()
    def propose_what_was_planned(self) -> None:
        self.propose(self.plan)

    @rule()
    def lead(self) -> None:
        """Twice the same, as by two who both believe to lead; then nothing is left to do but to wait."""
        plan = drained(steps(self.machine.state, lambda _: True, self.now))
        self.propose([command for command in plan for _ in range(2)])
        refused = [command for command in plan if isinstance(command, GrantTurn)]
        left = drained(steps(self.machine.state, lambda _: True, self.now))
        assert not {command.id for command in left if isinstance(command, GrantTurn)} - {
            command.id for command in refused
        }
        assert set(drained(standings(self.machine.state, lambda _: True))) == {
            turn.id for turn in waiting(self.machine.state)
        }

    @rule(place=PLACES, uuids=st.sets(st.sampled_from(ALL[:5]), min_size=1, max_size=5))
    def keep(self, place: int, uuids: set[str]) -> None:
        self.do(KeepGpus(self.one(place), tuple(sorted(uuids))))

    @rule(place=PLACES, uuid=st.sampled_from(ALL[:5]), priority=st.integers(-1, 1))
    def grant_what_no_plan_says(self, place: int, uuid: str, priority: int) -> None:
        """As a leader of another version may."""
        turn = self.machine.state.find(GPU_QUEUE, self.one(place))
        if turn is not None and len(turn.keys) == 1:
            home = self.machine.state.get(GPUS, uuid).member
            rows = tuple(msgspec.structs.replace(row, location=home) for row in turn.instances)
            self.propose([GrantTurn(turn.id, ((Grant("gpu", uuid),),), rows)])

    @rule(place=PLACES, cancelled=st.booleans())
    def leave(self, place: int, cancelled: bool) -> None:
        self.do(LeaveQueue(self.one(place), "", cancelled))

    @rule(place=PLACES)
    def finish(self, place: int) -> None:
        self.do(FinishTurn(self.one(place)))

    def one(self, place: int) -> str:
        """Id of some turn, or of none."""
        turns = [*(turn.id for turn in waiting(self.machine.state)), *sorted(self._turns()), "none"]
        return turns[place % len(turns)]

    @rule(seconds=st.integers(0, 100))
    def forget(self, seconds: int) -> None:
        self.do(ForgetTurns(self.now - seconds))
        self.granted = Counter({id: n for id, n in self.granted.items() if id in self._turns()})

    def _turns(self) -> set[str]:
        return set(self.machine.state.rows(GPU_QUEUE))

    @invariant()
    def nobody_is_granted_twice(self) -> None:
        """I4, I9."""
        assert all(number == 1 for number in self.granted.values())

    @invariant()
    def gpus_are_kept_for_one_that_waits(self) -> None:
        state = self.machine.state
        keepers = {row.turn for row in state.rows(GPUS_KEPT).values()}
        assert len(keepers) <= 1
        assert keepers <= {turn.id for turn in waiting(state)}

    @invariant()
    def what_waits_is_not_there_yet(self) -> None:
        state = self.machine.state
        keys = [row.key for turn in waiting(state) for row in turn.instances]
        assert len(set(keys)) == len(keys)
        assert not set(keys) & set(state.rows(INSTANCES))

    @invariant()
    def what_is_kept_is_counted_once(self) -> None:
        """I15: kept or not, a card is in one state."""
        rows = self.machine.state.rows(GPUS).values()
        assert sum(Counter(row.state for row in rows).values()) == len(rows)


Queue.TestCase.settings = examples(60, stateful_step_count=30)
TestQueue = Queue.TestCase
