"""The protocol between members: a test for each way in which the library alone loses or invents writes."""

import pytest

from cluster.failpoints import inject
from cluster.raft import snapshot
from cluster.raft.messages import (
    Append,
    Appended,
    Install,
    RequestVote,
    Vote,
)
from cluster.raft.snapshot import Header
from tests.cluster.raft.simulator import STEP, Crash, Simulator
from tests.cluster.raft.steps import append, followers, receive

# Disk


def test_an_entry_is_acknowledged_only_after_it_is_on_disk(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    member = three.members[follower]
    message = append(three, follower, b"\x01")
    with inject("journal.sync", Crash()), pytest.raises(Crash):
        receive(three, follower, leader, message)
    assert not [sent for _, sent in member.outbox if isinstance(sent, Appended)]
    three.crash(follower)


def test_entries_leave_before_the_leader_syncs_and_it_answers_after(three: Simulator) -> None:
    """So the disks of all members work at the same time."""
    leader = three.leader()
    member = three.members[leader]
    replies = three.propose(leader, "k")
    with inject("journal.sync", Crash()), pytest.raises(Crash):
        member.node.step()
    sent = [message for _, message in member.outbox if isinstance(message, Append) and message.entries]
    assert len(sent) == 2
    assert replies == []
    three.crash(leader)


def test_a_vote_survives_a_crash_right_after_it(three: Simulator) -> None:
    leader = three.leader()
    voter, candidate = followers(three)
    term = three[voter].term + 1
    request = RequestVote(term, three[voter].journal.last, three[voter].journal.last_term)
    assert Vote(term) in receive(three, voter, candidate, request)
    three.crash(voter)
    node = three.start(voter, fresh=False)
    node.guard.link_up(leader)
    node.guard.link_up(candidate)
    assert (node.journal.getCurrentTerm(), node.journal.getVotedForNodeId()) == (term, candidate)
    assert not [m for m in receive(three, voter, leader, request) if isinstance(m, Vote)]


def test_a_disk_error_ends_the_member_before_it_promises_anything(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    message = append(three, follower, b"\x01")
    with inject("journal.sync", OSError(5, "Input/output error"), visit=1):
        assert receive(three, follower, leader, message) == []
    assert "Input/output error" in three.fatal[follower]
    assert three[follower].step() is False
    assert receive(three, follower, leader, message) == []


# Logs


def test_a_repeated_message_takes_no_acknowledged_entry_away(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    node = three[follower]
    first = append(three, follower, b"\x01one", b"\x01two")
    assert [m.next_index for m in receive(three, follower, leader, first)] == [node.journal.last + 1]  # type: ignore[attr-defined]
    second = append(three, follower, b"\x01three")
    receive(three, follower, leader, second)
    last = node.journal.last
    (again,) = receive(three, follower, leader, first)
    assert again == Appended(node.term, last, reset=False, success=True)
    heartbeat = Append(node.term, 0, first.previous_index, first.previous_term, [])
    receive(three, follower, leader, heartbeat)
    three.crash(follower)
    assert three.start(follower, fresh=False).journal.last == last


def test_a_late_reset_does_not_move_the_leader_back(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    three.write(leader, "k1", "k2")
    three.run(0.2)
    node = three[leader]
    stale = Appended(node.term, next_index=2, reset=True, success=False)
    node.receive(follower, stale)
    three.propose(leader, "k3")
    member = three.members[leader]
    member.outbox.clear()
    node.step()
    sent = [m for to, m in member.outbox if to == follower and isinstance(m, Append) and m.entries]
    assert [m.previous_index for m in sent] == [node.journal.last - 1]


def test_entries_on_their_way_are_not_sent_again_at_each_acknowledgement(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    three.run(0.2)
    member, node = three.members[leader], three[leader]
    last = node.journal.last
    for key in ("k1", "k2"):
        three.propose(leader, key)
        node.step()
    assert node.journal.last == last + 2
    member.outbox.clear()
    node.receive(follower, Appended(node.term, next_index=last + 2, reset=False, success=True))
    node.step()
    sent = [m for to, m in member.outbox if to == follower and isinstance(m, Append)]
    assert [m.entries for m in sent if m.entries] == []


def test_acknowledgements_of_an_older_term_count_for_nothing(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    three.isolate(leader)
    three.tick()
    node = three[leader]
    replies = three.propose(leader, "k")
    node.step()
    old = Appended(node.term - 1, node.journal.last + 1, reset=False, success=True)
    node.receive(follower, old)
    node.step()
    assert replies == []
    node.receive(follower, Appended(node.term, node.journal.last + 1, reset=False, success=True))
    node.step()
    assert [reply.index for reply in replies] == [node.journal.last]


def test_the_place_where_two_logs_part_is_found_in_few_round_trips(three: Simulator) -> None:
    old = three.leader()
    three.isolate(old)
    three.tick()
    for number in range(40):
        three[old]._core.entry(str(number).encode())
    three[old].step()
    assert three[old].journal.last > 40
    second = three.leader_of(set("abc") - {old})
    for number in range(40):
        three.write(second, f"k{number}")
    three.crash(second)
    three.start(second, fresh=False)
    three.leader_of(set("abc") - {old})
    three.sent.clear()
    three.converge()
    assert len(three.values(old)) == 40
    resets = [m for sender, _, m in three.sent if sender == old and isinstance(m, Appended) and m.reset]
    assert 1 <= len(resets) <= 4


# Snapshots


def lagging(three: Simulator, *, unacknowledged: int = 0) -> tuple[str, str]:
    """(leader, a member that was away so long that it needs a snapshot)."""
    three.write(three.leader(), "first")
    three.run(0.3)
    away = three.leader() if unacknowledged else followers(three)[0]
    three.isolate(away)
    three.tick()
    for number in range(unacknowledged):
        three.propose(away, f"lost{number}")
        three[away].step()
    three.until(lambda: not three[away].is_leader)
    leader = three.leader()
    for number in range(30):
        three.write(leader, f"k{number}")
    for name in three.members:
        three[name].journal.trailing = 2
    three[leader]._core.forceLogCompaction()
    three.run(0.1)
    three.write_files()
    three.run(0.1)
    assert three[leader].journal.first > 20
    return leader, away


def test_nothing_is_committed_from_a_snapshot_before_it_is_complete(three: Simulator) -> None:
    """The follower's own entries were never compared with the leader's."""
    leader, away = lagging(three, unacknowledged=5)
    node = three[away]
    committed = node.committed
    data = (three.folder / leader / "snapshot").read_bytes()
    receive(three, away, leader, Install(three[leader].term, data[:100], first=True))
    assert node.committed == committed
    assert three.values(away) == {"first": 1}
    three.heal()
    three.converge()
    assert not [key for key in three.values(away) if key.startswith("lost")]


def test_a_member_that_fell_behind_gets_a_snapshot_and_says_what_changed(three: Simulator) -> None:
    leader, away = lagging(three)
    three.converge()
    assert three.values(away) == three.values(leader)
    received = [applied for applied in three.members[away].applied if applied.snapshot]
    assert len(received) == 1
    assert {change.key for change in received[0].changes} == {
        f"k{n}" for n in range(len(received[0].changes))
    }


def test_a_snapshot_that_is_already_in_the_log_does_not_clear_it(three: Simulator) -> None:
    leader, follower = lagging(three)[0], followers(three)[0]
    three.converge()
    node = three[follower]
    entry = append(three, follower, b"\x01")
    receive(three, follower, leader, entry)
    last = node.journal.last
    data = (three.folder / leader / "snapshot").read_bytes()
    receive(three, follower, leader, Install(node.term, data, first=True))
    receive(three, follower, leader, Install(node.term, b"", last=True))
    assert node.journal.last == last


def test_a_snapshot_of_entries_that_are_here_but_not_known_to_be_committed_clears_nothing(
    three: Simulator,
) -> None:
    """Entries behind it were acknowledged: the leader may have committed them by that."""
    leader, follower = three.leader(), followers(three)[0]
    node = three[follower]
    receive(three, follower, leader, append(three, follower, *(b"\x01" for _ in range(8))))
    last, committed = node.journal.last, node.committed
    inside = [entry for entry in node.journal[0:] if entry[1] in (last - 3, last - 2)]
    path = three.folder / "made"
    machine = three.members[follower].machine
    snapshot.write(path, Header(inside[1], inside[0], ["a", "b", "c"]), machine.dump_chunks(machine.state))
    assert last - 2 > committed
    receive(three, follower, leader, Install(node.term, path.read_bytes(), first=True))
    receive(three, follower, leader, Install(node.term, b"", last=True))
    assert node.journal.last == last


def test_a_damaged_transfer_is_not_acknowledged_and_not_loaded(three: Simulator) -> None:
    leader, away = lagging(three)
    data = bytearray((three.folder / leader / "snapshot").read_bytes())
    data[-20] ^= 1
    three[away].guard.link_up(leader)
    term = three[leader].term
    receive(three, away, leader, Install(term, bytes(data), first=True))
    answers = receive(three, away, leader, Install(term, b"", last=True))
    assert answers == []
    assert three.values(away) == {"first": 1}


def test_a_snapshot_that_cannot_be_loaded_ends_the_member_without_an_answer(
    three: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, away = lagging(three)
    data = (three.folder / leader / "snapshot").read_bytes()
    machine = three.members[away].machine
    monkeypatch.setattr(machine, "_tables", {})  # as if a newer version had written it
    three[away].guard.link_up(leader)
    term = three[leader].term
    receive(three, away, leader, Install(term, data, first=True))
    answers = receive(three, away, leader, Install(term, b"", last=True))
    assert answers == []
    assert "snapshot" in three.fatal[away]


def test_a_snapshot_finished_late_does_not_replace_a_newer_one(three: Simulator) -> None:
    leader, away = lagging(three)
    member = three.members[away]
    three.heal()
    three.cut(leader, away)
    other = next(name for name in three.members if name not in (leader, away))
    three.cut(other, away)
    member.node._core.forceLogCompaction()
    member.node.step()
    assert len(member.works) == 1
    three.converge()
    received = member.node.compaction.index
    assert received > 20
    member.works.pop()()
    three.run(0.1)
    assert member.node.compaction.index == received
    three.crash(away)
    three.start(away, fresh=False)
    three.run(0.1)
    assert three.values(away) == three.values(leader)


def test_entries_behind_a_snapshot_survive_a_crash_before_the_log_was_compacted(three: Simulator) -> None:
    leader, _ = lagging(three)
    three.write(leader, "more")
    node = three[leader]
    node._core.forceLogCompaction()
    node.step()
    three.write(leader, "after")
    three.members[leader].works.pop()()
    node.step()
    three.members[leader].works.pop()()
    with inject("journal.rename", Crash()), pytest.raises(Crash):
        node.step()
    assert node.compaction.index == node.applied - 1
    three.crash(leader)
    again = three.start(leader, fresh=False)
    assert again.journal.last == node.journal.last
    three.heal()
    three.converge()
    assert three.values(leader)["after"] == 1


def test_one_message_is_sent_while_a_snapshot_is_being_made(three: Simulator) -> None:
    leader, away = lagging(three)
    three.write(leader, "more")
    three[leader]._core.forceLogCompaction()
    three[leader].step()
    assert three.members[leader].works
    three.sent.clear()
    three.heal()
    three.run(0.5)
    sent = [m for _, to, m in three.sent if to == away and isinstance(m, Install)]
    assert {m.data for m in sent} == {None}
    assert 1 <= len(sent) <= 0.5 / STEP
    three.write_files()
    three.converge()
