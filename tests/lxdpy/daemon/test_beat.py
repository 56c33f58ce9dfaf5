"""Members that hear each other's beats, on a clock of the test's."""

from typing import Any, cast

from cluster.membership.heartbeat import BEAT_EVERY, LEAST_GRACE, SMALL, pause
from cluster.membership.model import MEMBERS, Member
from lxdpy.daemon.beat import Beat
from tests.lxdpy.fakes import LocalStore

IDS = ("a" * 12, "b" * 12, "c" * 12)


class Trio:
    """Three members on one clock, each with links to those that live."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stores = [LocalStore(id, founded=False) for id in IDS]
        self.beats = [self.start(place) for place in range(3)]
        for store in self.stores:
            store.peers = [other for other in self.stores if other is not store]
            for id in IDS:
                store.put(MEMBERS, id, Member(id, id[0]))
            for other in store.peers:
                store.link(other.member_id, True)

    def start(self, place: int) -> Beat:
        return Beat(cast(Any, self.stores[place]), lambda: self.now)

    def pass_by(self, seconds: float, *beating: int) -> None:
        for _ in range(round(seconds / BEAT_EVERY)):
            self.now += BEAT_EVERY
            for place in beating:
                self.beats[place].beat()


def test_who_beats_is_online_to_all_and_who_is_still_is_not() -> None:
    trio = Trio()
    trio.pass_by(3, 0, 1, 2)
    assert all(beat.online(id) for beat in trio.beats for id in IDS)
    trio.pass_by(LEAST_GRACE + BEAT_EVERY, 0, 1)
    for beat in trio.beats[:2]:
        assert [beat.online(id) for id in IDS] == [True, True, False]
        assert LEAST_GRACE < beat.verdict(IDS[2]).silence < LEAST_GRACE + 3 * BEAT_EVERY
    trio.pass_by(BEAT_EVERY, 0, 1, 2)
    assert trio.beats[0].online(IDS[2])


def test_a_link_that_breaks_is_told_at_once_and_one_that_comes_up_brings_a_beat() -> None:
    trio = Trio()
    trio.pass_by(3, 0, 1, 2)
    trio.stores[0].link(IDS[2], False)
    assert not trio.beats[0].online(IDS[2])
    trio.pass_by(10, 0, 1)
    trio.stores[0].link(IDS[2], True)
    assert not trio.beats[0].online(IDS[2])
    trio.stores[2].link(IDS[0], True)
    assert trio.beats[0].online(IDS[2])


def test_who_has_just_started_is_told_for_how_long_others_are_silent() -> None:
    trio = Trio()
    trio.pass_by(3, 0, 1, 2)
    trio.pass_by(60, 0, 1)
    restarted = trio.start(0)
    unknown = restarted.verdict(IDS[2])
    assert (unknown.online, unknown.known) == (False, False)
    trio.beats[1].beat()
    told = restarted.verdict(IDS[2])
    assert (told.online, told.known) == (False, True)
    assert abs(told.silence - 60) < 1


def test_what_is_not_a_beat_counts_as_one() -> None:
    trio = Trio()
    trio.stores[1].cast({"type": "event"})
    assert trio.beats[0].online(IDS[1])


def test_a_member_that_is_gone_is_forgotten() -> None:
    trio = Trio()
    trio.pass_by(3, 0, 1, 2)
    for store in trio.stores:
        store.put(MEMBERS, IDS[2], None)
    trio.pass_by(60, 0, 1)
    trio.stores[0].put(MEMBERS, IDS[2], Member(IDS[2], "c"))
    assert not trio.beats[0].verdict(IDS[2]).known


def test_beats_of_a_large_cluster_cost_no_more_than_those_of_a_small_one() -> None:
    assert pause(1) == pause(SMALL) == BEAT_EVERY
    assert 60 / pause(60) == SMALL / pause(SMALL)
