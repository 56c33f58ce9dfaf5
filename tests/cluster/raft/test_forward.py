"""What a follower hands to the leader: answered once, by whom it was asked, or known to be unknown."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.raft.batches import NOT_TAKEN, UNKNOWN, Reply
from cluster.raft.forward import Forwarder
from cluster.raft.messages import Answer, Forward, Message, Ping, ReadRequest
from tests.cluster.raft.simulator import Simulator
from tests.cluster.raft.toy import Raise, entry


class Desk:
    """A forwarder on a follower, and what it sent."""

    def __init__(self, simulator: Simulator) -> None:
        self.leader = simulator.leader()
        simulator.run(0.3)
        self.name = next(name for name in simulator.members if name != self.leader)
        self.sent: list[tuple[str, Message]] = []
        self.forwarder = Forwarder(
            simulator[self.name], lambda member, message: self.sent.append((member, message))
        )
        self.replies: list[Reply] = []

    def propose(self) -> int:
        self.forwarder.propose(entry(Raise("k"), "r"), self.replies.append)
        member, message = self.sent[-1]
        assert isinstance(message, Forward)
        assert member == self.leader
        return message.number


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    made = Simulator(tmp_path, monkeypatch)
    for name in "abc":
        made.start(name)
    yield made
    for name in list(made.members):
        made.crash(name)


def test_the_leaders_answer_is_the_answer(simulator: Simulator) -> None:
    desk = Desk(simulator)
    number = desk.propose()
    assert desk.forwarder.receive(desk.leader, Answer(number, index=7))
    assert desk.forwarder.receive(desk.leader, Answer(number, index=8))
    assert desk.replies == [Reply(index=7)]


def test_an_answer_counts_only_from_whom_was_asked(simulator: Simulator) -> None:
    desk = Desk(simulator)
    number = desk.propose()
    desk.forwarder.receive(desk.name, Answer(number, index=7))
    assert desk.replies == []


def test_an_answer_to_an_earlier_process_matches_nothing(simulator: Simulator) -> None:
    earlier, desk = Desk(simulator), Desk(simulator)
    number = earlier.propose()
    desk.propose()
    desk.forwarder.receive(desk.leader, Answer(number, index=7))
    assert desk.replies == []


def test_without_a_link_to_the_leader_nothing_is_sent(simulator: Simulator) -> None:
    desk = Desk(simulator)
    simulator[desk.name].guard.link_down(desk.leader)
    desk.forwarder.propose(entry(Raise("k"), "r"), desk.replies.append)
    desk.forwarder.read(desk.replies.append)
    assert desk.replies == [NOT_TAKEN, NOT_TAKEN]
    assert desk.sent == []


def test_when_the_leader_is_lost_the_outcome_is_unknown(simulator: Simulator) -> None:
    desk = Desk(simulator)
    desk.propose()
    desk.forwarder.give_up(unless=desk.leader)
    assert desk.replies == []
    desk.forwarder.give_up(unless=None)
    desk.forwarder.give_up(unless=None)
    assert desk.replies == [UNKNOWN]


def test_a_leader_answers_what_is_handed_to_it(simulator: Simulator) -> None:
    leader = simulator.leader()
    sent: list[tuple[str, Message]] = []
    forwarder = Forwarder(simulator[leader], lambda member, message: sent.append((member, message)))
    assert forwarder.receive("x", Forward(number=1, entry=entry(Raise("k"), "r")))
    assert forwarder.receive("x", ReadRequest(number=2))
    assert not forwarder.receive("x", Ping(term=1, round=1))
    simulator.until(lambda: len(sent) == 2)
    answers = {answer.number: answer for _, answer in sent if isinstance(answer, Answer)}
    assert answers[1].index == simulator[leader].journal.last
    assert answers[2].index is not None


def test_who_does_not_lead_says_so(simulator: Simulator) -> None:
    desk = Desk(simulator)
    desk.forwarder.receive("x", Forward(number=1, entry=b"e"))
    desk.forwarder.receive("x", ReadRequest(number=2))
    assert desk.sent == [("x", Answer(number=1)), ("x", Answer(number=2))]
