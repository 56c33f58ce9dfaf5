"""One member: what it starts from, what it proposes, whom it lets vote."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.failpoints import inject
from cluster.raft import batches
from cluster.raft.batches import NOT_TAKEN, UNKNOWN, Batches, Reply
from cluster.raft.codec import NO_OP
from cluster.raft.core import MAX_MESSAGE
from cluster.raft.frames import Damaged
from cluster.raft.journal import Identity, Journal
from cluster.raft.messages import Forward
from tests.cluster.raft.simulator import CLUSTER, Simulator
from tests.cluster.raft.steps import alone
from tests.cluster.raft.toy import Refuse, entry


def compacted(simulator: Simulator) -> Path:
    """A folder with a snapshot and a log that begins where it ends."""
    node = alone(simulator, *(f"k{number}" for number in range(10)))
    node.journal.trailing = 0
    simulator.write("a", "more")
    node._core.forceLogCompaction()
    for _ in range(2):  # the snapshot, then the log
        simulator.run(0.05)
        simulator.write_files()
    simulator.run(0.05)
    assert node.journal.first > 1
    simulator.crash("a")
    return simulator.folder / "a"


# Starting


def test_everything_is_there_after_a_restart(simulator: Simulator) -> None:
    compacted(simulator)
    simulator.start("a", fresh=False)
    simulator.leader()
    assert set(simulator.values("a")) == {*(f"k{number}" for number in range(10)), "more"}


def test_a_member_that_lost_its_log_does_not_start(simulator: Simulator) -> None:
    """It may have voted, and would vote again in the same term."""
    alone(simulator, "k")
    simulator.crash("a")
    (simulator.folder / "a" / "journal").unlink()
    with pytest.raises(Damaged, match="the log is gone"):
        simulator.start("a", fresh=False)


def test_a_member_whose_snapshot_is_damaged_does_not_start(simulator: Simulator) -> None:
    """The library would log it, and go on with an empty state."""
    path = compacted(simulator) / "snapshot"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Damaged, match="damaged"):
        simulator.start("a", fresh=False)


def test_a_member_whose_snapshot_is_gone_does_not_start(simulator: Simulator) -> None:
    (compacted(simulator) / "snapshot").unlink()
    with pytest.raises(Damaged, match="its snapshot is gone"):
        simulator.start("a", fresh=False)


def test_a_snapshot_without_a_log_is_not_a_fresh_start(simulator: Simulator) -> None:
    (compacted(simulator) / "journal").unlink()
    with pytest.raises(Damaged, match="without a log"):
        simulator.start("a", fresh=True)


def test_a_joiner_must_know_the_voters(simulator: Simulator) -> None:
    """With none it would elect itself, and write entries that look like the cluster's."""
    with pytest.raises(Damaged, match="voters"):
        simulator.start("a", "")


def test_leftovers_of_a_crash_are_removed(simulator: Simulator) -> None:
    folder = compacted(simulator)
    for name in ("snapshot.new", "snapshot.1.tmp", "journal.new"):
        (folder / name).write_bytes(b"half")
    simulator.start("a", fresh=False)
    assert {path.name for path in folder.iterdir()} == {"journal", "snapshot"}


def test_a_commit_index_behind_the_log_commits_nothing_by_itself(
    simulator: Simulator, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "j", Identity(CLUSTER, "a"), ["a", "b", "c"])
    journal.add(NO_OP, 1, 0)
    journal.setRaftCommitIndex(40)
    journal.close()
    (tmp_path / "a").mkdir()
    (tmp_path / "j").rename(tmp_path / "a" / "journal")
    node = simulator.start("a", "abc", fresh=False)
    simulator.run(0.1)
    assert node.committed == 1


def test_voters_after_a_restart_are_those_of_the_log(simulator: Simulator) -> None:
    """By an outdated list two majorities, and two leaders in one term, are possible."""
    simulator.learners = frozenset("abc")
    alone(simulator, "k")
    for name in "bc":
        simulator.start(name, "a")
        simulator.promote(name)
    simulator.run(0.3)
    for name in "abc":
        simulator.crash(name)
    for name in "abc":
        simulator.start(name, "a", fresh=False)
        simulator.run(0.02)
        assert simulator[name].voters == set("abc")
    simulator.write(simulator.leader(), "after")


def test_no_descriptors_are_left_behind(simulator: Simulator) -> None:
    alone(simulator, "k")
    simulator["a"].close()
    simulator.crash("a")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        node = simulator.start("a", fresh=False)
        simulator.run(0.1)
        node.close()
        simulator.crash("a")
    assert len(os.listdir("/proc/self/fd")) == before


# Proposals


def test_a_refused_command_is_an_answer(simulator: Simulator) -> None:
    node = alone(simulator)
    replies: list[Reply] = []
    node.propose(entry(Refuse(), "r"), replies.append)
    simulator.run(0.05)
    assert replies[0].index == node.applied
    assert replies[0].error is not None
    assert replies[0].error.kind == "conflict"


def test_a_repeated_request_is_done_once(simulator: Simulator) -> None:
    node = alone(simulator)
    replies = [*simulator.propose("a", "k", "same"), *simulator.propose("a", "k", "same")]
    simulator.run(0.05)
    simulator.propose("a", "k", "same")
    simulator.run(0.05)
    assert simulator.values("a") == {"k": 1}
    assert replies == []
    assert node.batches.flying is False


def test_many_proposals_share_one_entry(simulator: Simulator) -> None:
    node = alone(simulator)
    last = node.journal.last
    replies = [simulator.propose("a", f"k{number}") for number in range(200)]
    simulator.run(0.1)
    assert all(reply[0].index for reply in replies)
    assert node.journal.last <= last + 2
    assert len(simulator.values("a")) == 200


def test_a_follower_takes_no_proposals(simulator: Simulator) -> None:
    simulator.start("a", "abc")
    assert simulator.propose("a", "k") == [NOT_TAKEN]


def test_a_leader_that_steps_down_does_not_know_what_becomes_of_its_entries(simulator: Simulator) -> None:
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    simulator.isolate(leader)
    simulator.tick()
    entered = [simulator.propose(leader, f"k{number}") for number in range(2)]
    simulator.tick()
    simulator.tick()
    full = [simulator.propose(leader, f"k{number}") for number in (2, 3)]
    simulator.tick()
    waiting = simulator.propose(leader, "k4")
    simulator.run(3)
    assert entered == [[UNKNOWN], [UNKNOWN]]
    assert full == [[UNKNOWN], [UNKNOWN]]
    assert waiting == [NOT_TAKEN]


def test_the_largest_proposals_fit_into_a_message(simulator: Simulator) -> None:
    """Larger ones the library cuts into pieces that it puts together wrongly."""
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    room = batches.MAX_ENTRY - 300
    replies = [simulator.propose(leader, f"k{number}", padding="x" * room) for number in range(4)]
    simulator.until(lambda: all(replies))
    assert all(reply[0].index for reply in replies)
    simulator.converge()
    assert batches.MAX_BYTES + batches.MAX_PROPOSALS * 5 + 100 < MAX_MESSAGE
    assert simulator.fatal == {}


def test_a_batch_is_never_larger_than_a_message_may_be() -> None:
    sizes: list[int] = []

    def commit(blob: bytes, done: Callable[[Reply], None]) -> None:
        sizes.append(len(blob))
        done(UNKNOWN)

    queue = Batches(commit)
    for _ in range(10):
        queue.add(bytes(500 << 10), lambda _: None)
    queue.pump()
    assert len(sizes) == 10
    assert max(sizes) < MAX_MESSAGE


def test_an_entry_that_cannot_be_read_ends_the_member_once(simulator: Simulator) -> None:
    """The library would log it and try the same entry again for ever."""
    node = alone(simulator)
    node.propose(b"\xc1 not a proposal", lambda _: None)
    with pytest.raises(Exception, match="entry 3"):
        simulator.run(0.1)
    assert "entry 3" in simulator.fatal["a"]
    assert node.step() is False


def test_a_full_disk_ends_the_member_and_loses_nothing(simulator: Simulator) -> None:
    alone(simulator, "k")
    with inject("journal.write", OSError(28, "No space left on device")):
        replies = simulator.propose("a", "lost")
        simulator.run(0.05)
    assert replies == []
    assert "No space left" in simulator.fatal["a"]
    simulator.crash("a")
    simulator.start("a", fresh=False)
    simulator.leader()
    assert simulator.values("a") == {"k": 1}


def test_a_disk_error_is_not_tried_again(simulator: Simulator) -> None:
    """After a failed sync the next one may succeed, and what the first had to write is gone all the same."""
    alone(simulator)
    with inject("journal.sync", OSError(5, "Input/output error"), visit=1):
        replies = simulator.propose("a", "k")
        simulator.run(0.05)
    assert "Input/output error" in simulator.fatal["a"]
    assert replies == []


def test_the_library_forwards_nothing(simulator: Simulator) -> None:
    """Its answers get lost, and its request numbers begin again with each process."""
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    simulator.run(0.3)
    follower = next(name for name in "abc" if name != leader)
    simulator[follower]._core.entry(b"x", callback=lambda *_: None)
    simulator.sent.clear()
    simulator.run(0.3)
    kinds = {type(message) for sender, _, message in simulator.sent if sender == follower}
    assert Forward not in kinds
    assert simulator[leader].journal.last == simulator[follower].journal.last
