"""What is known of a change when time is up, by what was answered to each try."""

import asyncio
from collections.abc import Callable

import pytest

from cluster.errors import Unavailable, Uncertain
from cluster.raft import asking
from cluster.raft.asking import Ask, Deadline, answered
from cluster.raft.batches import NOT_TAKEN, UNKNOWN, Reply
from cluster.raft.thread import View

APPLIED = Reply(index=7)


class Scripted:
    """A session that gives these replies, one a try, and is closed after the last."""

    def __init__(self, *replies: Reply, leader: str | None = None, cut_off: bool = False) -> None:
        self.view = View(leader=leader, cut_off=cut_off)
        self.closed = False
        self.replies = list(replies)

    async def attempt(self, ask: Ask, timeout: float) -> Reply:
        if self.closed:
            raise Unavailable("closed")
        return self.replies.pop(0)

    async def pause(self, seconds: float) -> None:
        self.closed = not self.replies


class Hurried(Scripted):
    """Time is up after the last."""

    async def pause(self, seconds: float) -> None:
        if len(self.replies) == 1:
            self.deadline._time = 0

    deadline: Deadline


Make = Callable[..., Scripted]


async def ask(session: Scripted) -> Reply:
    deadline = Deadline(10)
    if isinstance(session, Hurried):
        session.deadline = deadline
    return await answered(session, lambda raft, answer: None, deadline)


@pytest.mark.parametrize("made", [Scripted, Hurried])
def test_it_is_asked_until_it_is_applied(made: Make) -> None:
    assert asyncio.run(ask(made(NOT_TAKEN, UNKNOWN, NOT_TAKEN, APPLIED))) == APPLIED


@pytest.mark.parametrize("made", [Scripted, Hurried])
def test_what_nobody_took_is_surely_not_applied(made: Make) -> None:
    with pytest.raises(Unavailable):
        asyncio.run(ask(made(NOT_TAKEN, NOT_TAKEN, NOT_TAKEN)))


@pytest.mark.parametrize("made", [Scripted, Hurried])
@pytest.mark.parametrize(
    "replies",
    [(UNKNOWN, NOT_TAKEN, NOT_TAKEN), (NOT_TAKEN, UNKNOWN, NOT_TAKEN), (NOT_TAKEN, NOT_TAKEN, UNKNOWN)],
)
def test_a_refusal_does_not_make_an_unknown_outcome_sure(made: Make, replies: tuple[Reply, ...]) -> None:
    with pytest.raises(Uncertain):
        asyncio.run(ask(made(*replies)))


def test_it_is_told_whether_there_was_a_leader() -> None:
    with pytest.raises(Unavailable, match="has no leader"):
        asyncio.run(ask(Hurried(NOT_TAKEN, NOT_TAKEN)))
    with pytest.raises(Unavailable, match="did not answer"):
        asyncio.run(ask(Hurried(NOT_TAKEN, NOT_TAKEN, leader="a")))


def test_who_is_cut_off_is_told_so_before_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CUT_OFF", 0)
    session = Scripted(NOT_TAKEN, APPLIED, cut_off=True)
    with pytest.raises(Unavailable, match="cut off"):
        asyncio.run(ask(session))
    assert session.replies == [APPLIED], "not asked for again"


def test_who_is_cut_off_and_does_not_know_asks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CUT_OFF", 0)
    assert asyncio.run(ask(Scripted(UNKNOWN, NOT_TAKEN, APPLIED, cut_off=True))) == APPLIED
    with pytest.raises(Uncertain):
        asyncio.run(ask(Scripted(UNKNOWN, NOT_TAKEN, cut_off=True)))


def test_only_who_has_been_cut_off_all_the_time_gives_up() -> None:
    session = Scripted(*[NOT_TAKEN] * 5, APPLIED, cut_off=True)  # for no time at all
    assert asyncio.run(ask(session)) == APPLIED
