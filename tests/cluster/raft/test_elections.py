"""Who leads, how soon after another, and what may be read from a leader."""

from pathlib import Path

import pytest

from cluster.raft.journal import Journal
from cluster.raft.messages import (
    Append,
    Ping,
    Pong,
    PreVote,
    TermHint,
    Vote,
)
from tests.cluster.raft.simulator import STEP, Simulator
from tests.cluster.raft.steps import followers, receive

# Elections


def test_a_group_of_one_leads_at_its_first_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator(tmp_path, monkeypatch)
    simulator.start("a", "a")
    simulator.tick()
    assert simulator["a"].is_leader
    simulator.crash("a")


def test_a_member_that_was_cut_off_disturbs_nobody_when_it_returns(three: Simulator) -> None:
    leader, away = three.leader(), followers(three)[0]
    term = three[leader].term
    three.isolate(away)
    three.run(10)
    assert three[away].term == term
    three.heal()
    three.run(3)
    assert (three.leader(), three[leader].term) == (leader, term)


def test_a_leader_that_is_cut_off_steps_down_within_two_seconds(three: Simulator) -> None:
    leader = three.leader()
    three.isolate(leader)
    three.run(2.0)
    assert not three[leader].is_leader
    assert three[leader].leader is None


def test_a_new_leader_is_there_within_three_seconds(three: Simulator) -> None:
    three.crash(three.leader())
    three.run(3.0)
    assert any(member.node.is_leader for member in three.members.values())


def test_nobody_grants_a_pre_vote_while_a_leader_lives(three: Simulator) -> None:
    voter, candidate = followers(three)
    node = three[voter]
    question = PreVote(node.term + 1, 1, node.journal.last + 5, node.term)
    (answer,) = receive(three, voter, candidate, question)
    assert not answer.granted  # type: ignore[attr-defined]


def test_nobody_grants_a_pre_vote_to_a_shorter_log(three: Simulator) -> None:
    voter, candidate = followers(three)
    three.clock.time += 5
    node = three[voter]
    short = PreVote(node.term + 1, 1, node.journal.last - 1, node.journal.last_term)
    (answer, *_) = receive(three, voter, candidate, short)
    assert not answer.granted  # type: ignore[attr-defined]


def test_a_vote_counts_once_and_only_of_a_voter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library counts what it gets: two copies, or a learner's vote, would make a leader of a minority."""
    simulator = Simulator(tmp_path, monkeypatch)
    node = simulator.start("d", "dvwxy")
    for name in "vwxy":
        node.guard.link_up(name)
    node.guard.elections.campaign()
    node.step()
    for sender in ("v", "v", "v", "stranger", "another"):
        node.receive(sender, Vote(node.term))
        node.step()
        assert not node.is_leader
    node.receive("w", Vote(node.term))
    node.step()
    assert node.is_leader
    simulator.crash("d")


def test_a_member_that_hears_only_followers_raises_no_term(three: Simulator) -> None:
    """It would depose a leader that a majority follows, again and again."""
    leader, away = three.leader(), followers(three)[0]
    term = three[leader].term
    three.cut(leader, away)
    three.run(10)
    assert {member.node.term for member in three.members.values()} == {term}
    assert three[leader].is_leader


def test_a_learner_does_not_campaign_even_when_it_would_win(three: Simulator) -> None:
    three.learners = frozenset("d")
    learner = three.start("d")
    three.converge()
    three.crash(three.leader())
    learner.guard.prevotes.hurry()
    three.sent.clear()
    three.run(1.5)
    learner.guard.prevotes.hurry()
    assert three.leader() != "d"
    assert not [m for sender, _, m in three.sent if sender == "d" and isinstance(m, PreVote)]


def test_a_group_of_one_commits_without_waiting_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = Simulator(tmp_path, monkeypatch)
    node = simulator.start("a", "a")
    while node.step():
        pass
    replies = simulator.propose("a", "k")
    assert node.step()
    node.step()
    assert [reply.index for reply in replies] == [node.journal.last]
    simulator.crash("a")


def test_an_old_leader_is_told_of_the_new_term(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    node = three[follower]
    old = Append(node.term - 1, 0, 1, 0, [])
    assert receive(three, follower, leader, old) == [TermHint(node.term)]


def test_a_second_leader_in_one_term_ends_the_member(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    receive(three, leader, follower, Append(three[leader].term, 0, 1, 0, []))
    assert "two leaders" in three.fatal[leader]


# Reads


def test_a_leader_without_a_majority_answers_no_read(three: Simulator) -> None:
    leader = three.leader()
    three.isolate(leader)
    three.tick()
    answers: list[int | None] = []
    three[leader].read_index(answers.append)
    three.run(3)
    assert answers == [None]


def test_a_pong_of_an_earlier_round_confirms_nothing(three: Simulator) -> None:
    leader, follower = three.leader(), followers(three)[0]
    node, member = three[leader], three.members[leader]
    first: list[int | None] = []
    node.read_index(first.append)
    node.step()
    ping = next(m for _, m in member.outbox if isinstance(m, Ping))
    node.receive(follower, Pong(node.term, ping.round))
    assert first == [node.committed]
    second: list[int | None] = []
    node.read_index(second.append)
    node.receive(follower, Pong(node.term, ping.round))
    assert second == []
    node.receive("learner", Pong(node.term, ping.round + 1))
    assert second == []
    node.receive(follower, Pong(node.term, ping.round + 1))
    assert second == [node.committed]


def test_readers_that_come_during_a_round_share_the_next(three: Simulator) -> None:
    leader = three.leader()
    node, member = three[leader], three.members[leader]
    member.outbox.clear()
    answers: list[int | None] = []
    for _ in range(50):
        node.read_index(answers.append)
    three.run(0.1)
    assert answers == [node.committed] * 50


def test_a_new_leader_answers_reads_only_after_an_entry_of_its_own_term(three: Simulator) -> None:
    three.write(three.leader(), "k")
    three.crash(three.leader())
    three.until(lambda: any(member.node.is_leader for member in three.members.values()))
    leader = next(name for name, member in three.members.items() if member.node.is_leader)
    node = three[leader]
    assert node.journal.term_at(node.committed) != node.term
    answers: list[int | None] = []
    node.read_index(answers.append)
    assert answers == [None]
    three.leader()
    node.read_index(answers.append)
    three.run(STEP * 10)
    assert answers[1:] == [node.committed]


def test_the_journal_is_what_the_library_gets(three: Simulator) -> None:
    assert all(isinstance(member.node.journal, Journal) for member in three.members.values())
