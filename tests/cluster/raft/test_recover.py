"""The majority is lost: one member goes on as a cluster of its own, and the others are kept out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import Conflict
from cluster.failpoints import inject
from cluster.raft.frames import Damaged
from cluster.raft.journal import Identity, Journal
from cluster.raft.recover import inspect, take_over
from tests.cluster.raft.simulator import CLUSTER, Crash, Simulator

KEYS = [f"k{number}" for number in range(40)]


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """Three members with data, a snapshot among it, all of them stopped."""
    simulator = Simulator(tmp_path, monkeypatch)
    simulator.max_entries, simulator.trailing = 10, 2
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    for key in KEYS:
        simulator.write(leader, key)
        simulator.write_files()
    simulator.converge()
    for name in "abc":
        simulator.crash(name)
    yield simulator
    for name in list(simulator.members):
        simulator.crash(name)


def test_a_stopped_member_can_be_looked_at(lost: Simulator) -> None:
    found = inspect(lost.folder / "b")
    assert found.identity == Identity(CLUSTER, "b")
    assert found.voters == ["a", "b", "c"]
    assert found.last >= found.committed >= found.snapshot > 10
    assert inspect(lost.folder / "b") == found


def test_a_survivor_alone_does_not_lead(lost: Simulator) -> None:
    lost.start("b", fresh=False)
    lost.run(10)
    assert not lost["b"].is_leader


def test_after_a_take_over_it_leads_with_all_that_was_there(lost: Simulator) -> None:
    before = inspect(lost.folder / "b")
    after = take_over(lost.folder / "b", "c2")
    assert (after.identity, after.voters) == (Identity("c2", "b"), ["b"])
    assert (after.last, after.term) == (before.last, before.term + 1)
    lost.start("b", "xyz", fresh=False, cluster_id="c2")
    lost.tick()
    assert lost["b"].is_leader
    assert lost.values("b") == dict.fromkeys(KEYS, 1)
    lost.write("b", "new")
    lost.crash("b")
    lost.start("b", "xyz", fresh=False, cluster_id="c2")
    lost.tick()
    assert lost["b"].voters == {"b"}


def test_members_of_the_old_cluster_are_kept_out(lost: Simulator) -> None:
    take_over(lost.folder / "b", "c2")
    with pytest.raises(Damaged, match="belongs to member a of cluster c1"):
        lost.start("a", fresh=False, cluster_id="c2")
    with pytest.raises(Damaged, match="belongs to member b of cluster c2"):
        lost.start("b", fresh=False)


@pytest.mark.parametrize(
    ("place", "visit"), [("snapshot.rename", 1), ("journal.rename", 1), ("journal.rename", 2)]
)
def test_an_interrupted_take_over_is_refused_until_it_is_finished(
    lost: Simulator, place: str, visit: int
) -> None:
    with inject(place, Crash(), visit=visit), pytest.raises(Crash):
        take_over(lost.folder / "b", "c2")
    with pytest.raises(Damaged, match="not finished"):
        lost.start("b", fresh=False)
    with pytest.raises(Conflict, match="cluster c2"):
        take_over(lost.folder / "b", "c3")
    take_over(lost.folder / "b", "c2")
    lost.start("b", fresh=False, cluster_id="c2")
    lost.tick()
    assert lost.values("b") == dict.fromkeys(KEYS, 1)


def test_a_take_over_done_twice_is_done_once(lost: Simulator) -> None:
    done = take_over(lost.folder / "b", "c2")
    assert take_over(lost.folder / "b", "c2") == done


def test_membership_entries_in_the_log_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator(tmp_path, monkeypatch)
    simulator.learners = frozenset("ab")
    simulator.start("a", "a")
    simulator.start("b", "a")
    simulator.promote("b")
    simulator.converge()
    for name in "ab":
        simulator.crash(name)
    take_over(tmp_path / "a", "c2")
    journal = Journal(tmp_path / "a" / "journal", Identity("c2", "a"), [])
    assert journal.voters() == {"a"}
    journal.close()
