"""Random faults on simulated time: nothing acknowledged is lost, nothing is done twice, no read is stale.

More of them: `LXDPY_SEEDS=100:500 pytest tests/cluster/raft/test_simulated.py`, a process for each core.
"""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster.failpoints import inject
from cluster.raft import core
from cluster.raft.batches import NOT_TAKEN, UNKNOWN, Reply
from tests.cluster.raft.simulator import Crash, Simulator
from tests.cluster.raft.toy import Raise, entry

SECONDS = 10.0  # of simulated trouble per seed; more, until there is enough to judge
ENOUGH = 20  # acknowledged writes
SEEDS = range(*map(int, os.environ.get("LXDPY_SEEDS", "0:8").split(":")))
PLACES = ("journal.write", "journal.sync", "journal.rename", "snapshot.rename")


class Trouble:
    """Clients that retry under one request id, readers, and everything that can go wrong."""

    def __init__(self, simulator: Simulator, names: str) -> None:
        self.simulator = simulator
        self.names = names
        self.random = simulator.random
        self.keys: Iterator[int] = iter(range(10**9))
        self.open: dict[str, list[Reply]] = {}
        self.acknowledged: set[str] = set()
        self.reads = 0

    def step(self) -> None:
        self._clients()
        self._reader()
        if self.random.random() < 0.02:
            self._fault()
        if self.random.random() < 0.02:
            self._membership()
        if self.random.random() < 0.1:
            self.simulator.write_files()

    def _clients(self) -> None:
        simulator = self.simulator
        while len(self.open) < 8:
            self.open[f"k{next(self.keys)}"] = [NOT_TAKEN]
        for key, replies in list(self.open.items()):
            if not replies:
                if self.random.random() < 0.01:  # whom it asked is gone; an answer yet to come is lost
                    self.open[key] = [UNKNOWN]
                continue
            if replies[-1].index is not None:
                self.acknowledged.add(key)
                del self.open[key]
            elif simulator.members and self.random.random() < 0.2:
                name = self._somebody()
                self.open[key] = []
                simulator[name].propose(entry(Raise(key), key), self.open[key].append)
                simulator.wake(name)

    def _somebody(self) -> str:
        """More often one that believes to lead: nobody else takes proposals."""
        members = self.simulator.members
        leaders = [name for name in members if members[name].node.is_leader]
        return self.random.choice(leaders if leaders and self.random.random() < 0.7 else list(members))

    def _reader(self) -> None:
        simulator = self.simulator
        if not simulator.members or self.random.random() > 0.3:
            return
        name = self.random.choice(list(simulator.members))
        known = set(self.acknowledged)
        member = simulator.members[name]

        def check(index: int | None) -> None:
            if index is not None and member.node.applied >= index:
                self.reads += 1
                assert known <= simulator.values(name).keys(), "a stale read"

        member.node.read_index(check)

    def _fault(self) -> None:
        simulator, chance = self.simulator, self.random
        dead = [name for name in self.names if name not in simulator.members]
        kind = chance.randrange(9)
        if dead and kind < 3:
            simulator.start(chance.choice(dead), fresh=False)
        elif kind == 0 and len(dead) < 2:
            simulator.crash(chance.choice(list(simulator.members)))
        elif kind == 1:
            leaders = [name for name in simulator.members if simulator[name].is_leader]
            simulator.isolate(leaders[0] if leaders else chance.choice(self.names))
        elif kind in (2, 4):
            simulator.cut(*chance.sample(self.names, 2), both=chance.random() < 0.5)
        elif kind == 3:
            simulator.latency = chance.choice([(0.001, 0.005), (0.01, 0.3)])
        elif kind == 5:  # every link breaks and comes back
            for name in self.names:
                if name in simulator.members:
                    simulator.isolate(name)
            simulator.tick()
            simulator.heal()
        else:
            simulator.heal()

    def _membership(self) -> None:
        simulator = self.simulator
        for name in list(simulator.members):
            if simulator[name].is_leader:
                voters = simulator[name].voters
                other = self.random.choice(self.names)
                if other not in voters:
                    simulator[name].change("add", other, lambda _: None)
                elif len(voters) > 3:
                    simulator[name].change("rem", other, lambda _: None)


def settle(simulator: Simulator) -> None:
    """Files are written as long as anybody may wait for a snapshot."""
    simulator.heal()

    def written() -> bool:
        simulator.write_files()
        return len({member.node.applied for member in simulator.members.values()}) == 1

    simulator.leader()
    simulator.until(written, 60)
    simulator.converge()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_whatever_happens(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = Simulator(tmp_path, monkeypatch, seed=seed)
    simulator.max_entries, simulator.trailing, simulator.disorder = 25, 2, 0.3
    simulator.timer = 10
    monkeypatch.setattr(core, "SNAPSHOT_PIECE", 300)
    simulator.learners = frozenset("abcde")
    for name in "abcde":
        simulator.start(name)
    trouble = Trouble(simulator, "abcde")
    places = random.Random(seed)
    while simulator.clock.time < 100 + SECONDS or len(trouble.acknowledged) < ENOUGH or not trouble.reads:
        with ExitStack() as crashes:
            if places.random() < 0.01:
                crashes.enter_context(inject(places.choice(PLACES), Crash(), visit=places.randint(1, 3)))
            simulator.tick()
        trouble.step()
    for name in "abcde":
        if name not in simulator.members:
            simulator.start(name, fresh=False)
    simulator.latency = (0.001, 0.005)
    settle(simulator)
    values = simulator.values("a")
    assert simulator.fatal == {}
    assert trouble.acknowledged <= values.keys(), "an acknowledged write is lost"
    assert set(values.values()) == {1}, "a write was done twice"
