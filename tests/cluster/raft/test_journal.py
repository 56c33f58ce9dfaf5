"""The log on disk: durable when it says so, refused when it cannot be believed, compacted without loss."""

import errno
import struct
from pathlib import Path

import pytest

from cluster.failpoints import inject
from cluster.raft import journal as module
from cluster.raft.background import Work
from cluster.raft.codec import MEMBERSHIP, NO_OP, dumps
from cluster.raft.frames import Damaged
from cluster.raft.journal import Identity, Journal
from cluster.raft.snapshot import Entry
from tests.cluster.raft.simulator import Crash

ME = Identity("c1", "a")


def opened(folder: Path, identity: Identity = ME, voters: str = "abc") -> Journal:
    return Journal(folder / "journal", identity, list(voters))


def filled(folder: Path, count: int, term: int = 1) -> Journal:
    journal = opened(folder)
    for index in range(1, count + 1):
        journal.add(b"\0" + str(index).encode(), index, term)
    journal.sync()
    return journal


def change(verb: str, member: str) -> bytes:
    return MEMBERSHIP + dumps([verb, member])


def at_once(work: Work) -> Work:
    work()
    return lambda: None


def entries(journal: Journal) -> list[Entry]:
    return journal[0:]


def test_what_was_synced_is_there_after_a_crash(tmp_path: Path) -> None:
    journal = filled(tmp_path, 5)
    journal.add(b"\0not synced", 6, 1)
    journal._file.close()
    assert entries(opened(tmp_path)) == [(b"\0" + str(i).encode(), i, 1) for i in range(1, 6)]


def test_term_and_vote_are_durable_at_once(tmp_path: Path) -> None:
    journal = filled(tmp_path, 1)
    journal.setCurrentTerm(7, "b")
    journal._file.close()
    again = opened(tmp_path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (7, "b")


def test_truncation_is_durable(tmp_path: Path) -> None:
    journal = filled(tmp_path, 5)
    journal.deleteEntriesFrom(2)
    journal.add(b"\0other", 3, 2)
    journal.sync()
    journal._file.close()
    assert [(index, term) for _, index, term in entries(opened(tmp_path))] == [(1, 1), (2, 1), (3, 2)]


def test_the_commit_index_never_points_behind_the_last_entry(tmp_path: Path) -> None:
    journal = filled(tmp_path, 5)
    journal.setRaftCommitIndex(50)
    journal.close()
    assert opened(tmp_path).getRaftCommitIndex() == 5


def test_the_commit_index_is_kept_at_close(tmp_path: Path) -> None:
    journal = filled(tmp_path, 5)
    journal.setRaftCommitIndex(4)
    journal.close()
    assert opened(tmp_path).getRaftCommitIndex() == 4


@pytest.mark.parametrize("identity", [Identity("c2", "a"), Identity("c1", "b")])
def test_a_log_of_another_member_or_cluster_is_refused(tmp_path: Path, identity: Identity) -> None:
    filled(tmp_path, 3).close()
    with pytest.raises(Damaged, match="belongs to member a of cluster c1"):
        opened(tmp_path, identity)


def test_a_log_with_a_gap_is_refused(tmp_path: Path) -> None:
    journal = filled(tmp_path, 3)
    with pytest.raises(Damaged, match="entry 5 after 3"):
        journal.add(b"\0", 5, 1)


def test_voters_follow_the_entries_not_the_list_it_was_opened_with(tmp_path: Path) -> None:
    journal = opened(tmp_path, voters="a")
    journal.add(NO_OP, 1, 0)
    journal.add(change("add", "b"), 2, 1)
    journal.add(change("add", "c"), 3, 1)
    journal.add(change("rem", "b"), 4, 1)
    journal.close()
    again = opened(tmp_path, voters="xyz")
    assert again.voters() == {"a", "c"}
    assert again.voters(upto=3) == {"a", "b", "c"}
    assert again.last_change == 4


def test_truncation_takes_membership_changes_back(tmp_path: Path) -> None:
    journal = opened(tmp_path, voters="a")
    journal.add(NO_OP, 1, 0)
    journal.add(change("add", "b"), 2, 1)
    assert journal.voters() == {"a", "b"}
    journal.deleteEntriesFrom(1)
    assert journal.voters() == {"a"}
    assert journal.last_change == 0


def test_compaction_keeps_the_voters_and_some_entries(tmp_path: Path) -> None:
    journal = opened(tmp_path, voters="a")
    journal.trailing = 2
    journal.add(NO_OP, 1, 0)
    journal.add(change("add", "b"), 2, 1)
    for index in range(3, 11):
        journal.add(b"\0", index, 1)
    journal.spawn = at_once
    journal.deleteEntriesTo(8)  # a snapshot begins with entry 9
    journal.sync()
    journal.close()
    again = opened(tmp_path, voters="z")
    assert (again.first, again.last) == (7, 10)
    assert again.voters() == {"a", "b"}


def test_compaction_does_not_keep_more_bytes_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRAILING_BYTES", 2500)
    journal = opened(tmp_path)
    for index in range(1, 11):
        journal.add(bytes(1000), index, 1)
    journal.deleteEntriesTo(8)
    assert journal.first == 7


def shrinking(folder: Path) -> tuple[Journal, list[Work]]:
    """A log that is being compacted, and what a thread would do for it."""
    journal = filled(folder, 100)
    works: list[Work] = []

    def spawn(work: Work) -> Work:
        works.append(work)
        return lambda: None

    journal.spawn = spawn
    journal.trailing = 0
    journal.deleteEntriesTo(90)
    journal.sync()
    assert journal.is_shrinking
    return journal, works


def test_what_is_added_while_the_log_is_compacted_is_in_it(tmp_path: Path) -> None:
    journal, works = shrinking(tmp_path)
    before = journal.bytes_on_disk
    journal.add(b"\0between", 101, 2)
    journal.setCurrentTerm(3, "b")
    works.pop()()
    journal.deleteEntriesFrom(len(journal) - 1)
    journal.add(b"\0instead", 101, 3)
    assert journal.bytes_on_disk >= before
    journal.sync()
    assert not journal.is_shrinking
    assert journal.bytes_on_disk < before
    journal._file.close()
    again = opened(tmp_path)
    assert (again.first, again.last, again[-1]) == (91, 101, (b"\0instead", 101, 3))
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "b")


@pytest.mark.parametrize("place", ["journal.write", "journal.sync", "journal.rename"])
def test_a_crash_during_compaction_loses_nothing(tmp_path: Path, place: str) -> None:
    journal, works = shrinking(tmp_path)
    journal.add(b"\0between", 101, 2)
    journal.sync()
    with inject(place, Crash()), pytest.raises(Crash):  # noqa: PT012  # it may crash in either
        works.pop()()
        journal.sync()
    journal._file.close()
    assert (opened(tmp_path).first, opened(tmp_path).last) == (1, 101)


def test_a_log_that_cannot_be_compacted_stays_as_it_is(tmp_path: Path) -> None:
    """For want of space, say; a failed write to it would end the member, this one promises nothing."""
    journal, works = shrinking(tmp_path)
    with inject("journal.write", OSError(errno.ENOSPC, "no space")):
        works.pop()()
    journal.add(b"\0after", 101, 2)
    journal.sync()
    assert not journal.is_shrinking
    journal._file.close()
    assert (opened(tmp_path).first, opened(tmp_path).last) == (1, 101)


def test_a_log_that_begins_anew_while_it_is_compacted_does(tmp_path: Path) -> None:
    journal, works = shrinking(tmp_path)
    journal.expect_snapshot(["x"])
    journal.clear()
    journal.add(b"\0", 500, 4)
    journal.sync()
    works.pop()()
    journal.sync()
    journal._file.close()
    again = opened(tmp_path)
    assert [index for _, index, _ in entries(again)] == [500]
    assert again.voters() == {"x"}


def test_aligning_with_a_snapshot_keeps_what_comes_after_it(tmp_path: Path) -> None:
    """The library clears a log that does not begin with the snapshot's last two entries."""
    journal = filled(tmp_path, 10)
    assert journal.align((b"\0", 6, 1), ["a"])
    assert (journal.first, journal.last) == (5, 10)


def test_a_log_that_contradicts_the_snapshot_begins_anew_with_its_voters(tmp_path: Path) -> None:
    journal = filled(tmp_path, 4)
    assert not journal.align((b"\0", 6, 2), ["x", "y"])
    journal.clear()
    assert journal.voters() == {"x", "y"}


def test_entries_missing_between_snapshot_and_log_are_noticed(tmp_path: Path) -> None:
    journal = filled(tmp_path, 10)
    journal.trailing = 0
    journal.deleteEntriesTo(8)
    with pytest.raises(Damaged, match="starts at entry 9, the snapshot ends at 5"):
        journal.align((b"\0", 5, 1), ["a"])


def test_a_flipped_bit_is_never_a_different_log(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = filled(tmp_path, 3)
    journal.setCurrentTerm(3, "c")
    good, size = entries(journal), journal.bytes_on_disk
    journal._file.close()
    content = path.read_bytes()[:size]
    (tail,) = struct.unpack_from("<I", content, 12)
    believed = 0
    for position in range(0, size, 3):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(bytes(flipped))
        try:
            again = opened(tmp_path)
        except Damaged:
            continue
        again.close()
        believed += 1
        assert entries(again) == good[: len(again)]
        assert position > tail
    assert believed < size / 3 / 2
