"""Who held each GPU, as members that lag behind propose, repeat and lose entries: one register a device.

Every seed is a run of its own: clients at three members create, wait and delete; each member plans on the
state that it last saw; entries arrive late, out of order, twice or not at all; the machine is restored from
its snapshot now and then. The history goes through the checker that judges the database itself.
"""

from itertools import count
from random import Random

import msgspec
import pytest

from cluster.errors import Error
from cluster.scheduler.place import place
from cluster.scheduler.queue import drained
from cluster.scheduler.types import Ask
from cluster.state.command import Command, entry_of
from cluster.state.txn import State
from lxdpy.dev.history import Call, complaints
from lxdpy.resources.gpu_queue.claims import steps
from lxdpy.resources.gpu_queue.commands import JoinQueue, LeaveQueue
from lxdpy.resources.gpu_queue.model import Turn, waiting
from lxdpy.resources.gpus.commands import Grant, ReportGpus
from lxdpy.resources.gpus.model import GPUS, GpuRow
from lxdpy.resources.instances.claims import ask_of, grants_of, views
from lxdpy.resources.instances.commands import CreateInstance, DeleteInstance
from lxdpy.resources.instances.model import INSTANCES, Instance
from lxdpy.resources.tables import new_machine
from tests.effort import SHARE
from tests.lxdpy.resources.test_ledger import ONE, Log, card

SEEDS = 200 // SHARE
STEPS = 200
CARDS = ("g1", "g2", "g3", "g4")


class Run(Log):
    def __init__(self, seed: int) -> None:
        self.history: list[Call] = []
        super().__init__()
        self.dice = Random(seed)
        self.do(ReportGpus(ONE, tuple(card(uuid) for uuid in CARDS)))
        self.seen: list[State] = [self.machine.state] * 3  # of each member
        self.under_way: list[tuple[float, int, bytes]] = []  # began, by whom, entry
        self.numbers = count(1)
        self.grants = 0

    def run(self) -> None:
        ways = [self.ask, self.ask, self.wait, self.wait, self.lead, self.lead, self.delete, self.catch_up]
        for _ in range(STEPS):
            self.dice.choice([*ways, *[self.arrive] * 7, self.restore, self.read])()
        self.read()

    @property
    def now(self) -> float:
        return float(len(self.entries))

    def propose(self, member: int, command: Command) -> None:
        entry = entry_of(command, request_id=f"r{next(self.numbers)}", proposer=ONE, proposed_at=self.now)
        self.under_way.append((self.now, member, entry))

    def ask(self) -> None:
        """A client that does not wait, placed on what its member has seen."""
        member = self.dice.randrange(3)
        row = self.row(location=ONE)
        ask = ask_of(row.config | {"limits.gpu": "1"}, {"gpu": {"type": "gpu", "count": "1"}}, "x86_64")
        try:
            found = place(Ask(gpus=ask.gpus), views(self.seen[member], lambda _: True))
        except Error:
            return
        self.propose(member, CreateInstance(row, grants_of(ask, found)))

    def wait(self) -> None:
        number = self.dice.randint(1, 3)
        row = self.row(**{"limits.gpu": str(number), "gpu.wait": "-1"})
        id = f"{next(self.numbers):08x}-0000-4000-8000-{ONE}"
        self.propose(0, JoinQueue(Turn(id, "default", instances=(row,), priority=self.dice.randint(0, 1))))

    def row(self, location: str = "", **config: str) -> Instance:
        name = f"c{next(self.numbers)}"
        return Instance(
            "default", name, f"{name}-000000000000", location, config=config, profiles=("default",)
        )

    def lead(self) -> None:
        """Whoever believes to lead."""
        member = self.dice.randrange(3)
        for command in drained(steps(self.seen[member], lambda _: True, self.now)):
            self.propose(member, command)

    def delete(self) -> None:
        rows = sorted(self.machine.state.rows(INSTANCES).values(), key=lambda row: row.key)
        if rows:
            gone = self.dice.choice(rows)
            self.propose(0, DeleteInstance(gone.key, gone.uuid))
        if (turns := waiting(self.machine.state)) and self.dice.random() < 0.1:
            self.propose(0, LeaveQueue(self.dice.choice(turns).id, "", cancelled=True))

    def catch_up(self) -> None:
        self.seen[self.dice.randrange(3)] = self.machine.state

    def restore(self) -> None:
        """A member that comes back from its snapshot has the same state, and knows what it answered."""
        again = new_machine()
        again.load([*self.machine.dump_chunks(self.machine.state, self.machine.remembered())])
        self.machine = again

    def arrive(self) -> None:
        if not self.under_way:
            return
        began, _, entry = self.under_way.pop(self.dice.randrange(len(self.under_way)))
        if self.dice.random() < 0.1:
            return  # lost
        if self.dice.random() < 0.2:
            self.under_way.append((began, 0, entry))  # and once more
        before = self.machine.state
        self.entries.append(entry)
        outcome = self.machine.apply(len(self.entries), entry)
        assert outcome.error is None or outcome.error.kind != "internal", outcome.error
        for change in outcome.changes:
            if change.table == "gpus":
                self.note(began, before.get(GPUS, change.key), self.machine.state.get(GPUS, change.key))

    def note(self, began: float, before: GpuRow, after: GpuRow) -> None:
        """A grant finds the card free, whatever else is in the row; a release finds the holder."""
        for holder in set(after.holders) - set(before.holders):
            self.grants += 1
            self.swap(began, after.uuid, free(before), holder.instance)
        for holder in set(before.holders) - set(after.holders):
            self.swap(began, after.uuid, holder.instance, free(after))

    def swap(self, began: float, uuid: str, expected: str, value: str) -> None:
        self.history.append(Call(uuid, "swap", value, began, self.now, expected=expected))

    def read(self) -> None:
        for uuid in CARDS:
            row = self.machine.state.get(GPUS, uuid)
            assert len(row.holders) <= 1
            held = row.holders[0].instance if row.holders else free(row)
            self.history.append(Call(uuid, "read", held, self.now, self.now))


def free(row: GpuRow) -> str:
    """Each time it is free has a name of its own."""
    return f"free since {row.freed}"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_holders_of_each_device_are_linearizable(seed: int) -> None:
    run = Run(seed)
    run.run()
    assert list(complaints(run.history, initial="free since 0.0")) == []
    assert run.grants > 0


def test_a_second_holder_would_be_found() -> None:
    run = Run(0)
    row = run.machine.state.get(GPUS, "g1")
    grant = Grant("gpu", "g1")
    first, second = (CreateInstance(run.row(location=ONE), (grant,)) for _ in range(2))
    for command in (first, second):
        held = msgspec.structs.replace(row, holders=())
        run.swap(0.0, "g1", free(held), command.instance.key)
    assert "not linearizable" in "".join(complaints(run.history, initial="free since 0.0"))
