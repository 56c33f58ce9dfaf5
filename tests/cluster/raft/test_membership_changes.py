"""Who votes, who only listens, who leads; and that the library never pickles."""

from collections import Counter

import pysyncobj.pickle
import pytest
from pysyncobj import syncobj

from cluster.raft.batches import NOT_TAKEN, Reply
from cluster.raft.codec import MEMBERSHIP, NO_OP, Peer, dumps, loads, membership
from cluster.raft.messages import Append, Appended
from tests.cluster.raft.simulator import Simulator
from tests.cluster.raft.steps import alone

# Membership


def test_a_learner_gets_everything_and_never_campaigns(simulator: Simulator) -> None:
    simulator.learners = frozenset("b")
    alone(simulator, "k1")
    node = simulator.start("b", "a")
    simulator.write("a", "k2")
    simulator.until(lambda: simulator.values("b") == {"k1": 1, "k2": 1})
    simulator.isolate("b")
    simulator.run(10)
    assert (node.term, node.is_leader) == (simulator["a"].term, False)
    simulator.write("a", "k3")


def test_a_learner_is_told_of_its_leader_less_often_but_of_news_at_once(simulator: Simulator) -> None:
    simulator.learners = frozenset("bc")
    alone(simulator, "k1")
    simulator.start("b", "a")
    simulator.promote("b")
    simulator.start("c", "a")
    simulator.run(2)
    simulator.sent.clear()
    simulator.run(6)
    told = Counter(to for source, to, message in simulator.sent if source == "a" and type(message) is Append)
    assert told["b"] > 25, "five a second, but for the passes it takes"
    assert 10 < told["c"] <= told["b"] / 2 + 1
    answers = Counter(source for source, _, message in simulator.sent if type(message) is Appended)
    assert answers["b"] > 25
    assert 2 <= answers["c"] <= 4, "no news, so every two seconds"
    simulator.write("a", "k2")
    simulator.run(0.15)
    assert simulator.values("c") == {"k1": 1, "k2": 1}


def test_a_learner_is_promoted_in_place_and_demoted_again(simulator: Simulator) -> None:
    simulator.learners = frozenset("ab")
    alone(simulator, "k1")
    simulator.start("b", "a")
    simulator.promote("b")
    simulator.run(0.2)
    assert simulator["a"].voters == simulator["b"].voters == {"a", "b"}
    simulator.cut("a", "b")
    simulator.run(0.2)
    simulator.heal()
    simulator.run(3)
    leader = simulator.leader()
    other = "b" if leader == "a" else "a"
    replies: list[Reply] = []
    simulator[leader].change("rem", other, replies.append)
    simulator.until(lambda: replies)
    assert replies[0].index is not None
    simulator.write(leader, "k2")
    simulator.until(lambda: simulator.values(other) == {"k1": 1, "k2": 1})
    simulator.run(5)
    assert not simulator[other].is_leader
    simulator.promote(other)
    simulator.write(leader, "k3")


def test_nobody_votes_before_it_has_the_log_and_a_link(simulator: Simulator) -> None:
    """A voter that is not there takes the majority away from the one that is."""
    alone(simulator, "k")
    replies: list[Reply] = []
    simulator["a"].change("add", "b", replies.append)
    simulator.run(0.1)
    assert replies == [NOT_TAKEN]
    assert simulator["a"].voters == {"a"}


def test_a_second_change_waits_for_the_first(simulator: Simulator) -> None:
    """Two changes under way at once can make two majorities that do not meet."""
    simulator.learners = frozenset("abcde")
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    for name in "de":
        simulator.start(name)
    simulator.run(0.5)
    others = [name for name in "abc" if name != leader]
    for name in others:
        simulator.cut(leader, name)
    simulator.tick()
    replies: list[Reply] = []
    simulator[leader].change("add", "d", replies.append)
    simulator.tick()
    simulator[leader].change("add", "e", replies.append)
    simulator.tick()
    assert replies == [NOT_TAKEN]
    assert simulator[leader].voters == set("abcd")


def test_the_leader_does_not_remove_itself(simulator: Simulator) -> None:
    replies: list[Reply] = []
    alone(simulator).change("rem", "a", replies.append)
    assert replies == [NOT_TAKEN]


def test_applying_an_old_change_does_not_bring_a_removed_voter_back(simulator: Simulator) -> None:
    """The library repeats each change when it is applied, long after a later one undid it."""
    node = simulator.start("a", "b")
    node.guard.link_up("b")
    changes = [("add", "x"), ("rem", "x"), ("add", "y")]
    entries = [(MEMBERSHIP + dumps([*change]), index, 1) for index, change in enumerate(changes, 2)]
    node.receive("b", Append(1, 2, 1, 0, entries))
    node.step()
    assert node.applied == 2
    assert {peer.id for peer in node._core.otherNodes} == {"b", "y"}


def test_leadership_is_handed_to_a_voter_that_has_everything(simulator: Simulator) -> None:
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    simulator.write(leader, "k")
    simulator.run(0.3)
    assert simulator[leader].hand_over(None)
    simulator.run(0.3)
    successor = simulator.leader()
    assert successor != leader
    simulator.write(successor, "after")


def test_leadership_is_not_handed_over_while_proposals_await_their_answer(simulator: Simulator) -> None:
    """Who made them would not learn what became of them."""
    for name in "abc":
        simulator.start(name)
    leader = simulator.leader()
    simulator.run(0.3)
    node = simulator[leader]
    replies = simulator.propose(leader, "k")
    simulator.tick()
    other = next(name for name in "abc" if name != leader)
    simulator[leader].receive(other, Appended(node.term, node.journal.last + 1, reset=False, success=True))
    assert not node.hand_over(other)
    simulator.until(lambda: replies)
    simulator.run(0.1)
    assert node.hand_over(other)


# The library


def test_nothing_is_pickled(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle")

    for name in ("dumps", "loads", "dump", "load"):
        monkeypatch.setattr(pysyncobj.pickle, name, refuse)
        monkeypatch.setattr(f"pickle.{name}", refuse)
    simulator.learners = frozenset("ab")
    alone(simulator, "k")
    simulator.start("b", "a")
    simulator.promote("b")
    simulator.converge()
    assert simulator.values("b") == {"k": 1}
    assert syncobj.pickle is not pysyncobj.pickle


def test_membership_entries_are_read_back_as_they_were_written() -> None:
    peer = loads(dumps(Peer("0123456789ab")))
    assert (type(peer), peer.id) == (Peer, "0123456789ab")
    assert membership(MEMBERSHIP + dumps(["add", "b", Peer("b")])) == ("add", "b")
    assert membership(NO_OP) is None
    assert membership(b"\0\x02") is None
