import pytest

from cluster.membership.heartbeat import BEAT_EVERY, LEAST_GRACE, MOST_GRACE, Pulse, until_next


def beating(gap: float, times: int = 20) -> tuple[Pulse, float]:
    """A member that beats every `gap` seconds, and when it was last heard."""
    pulse, now = Pulse(0.0), 0.0
    for _ in range(times):
        now += gap
        pulse.beat(now)
    return pulse, now


def test_who_beats_is_online_until_its_grace_is_over() -> None:
    pulse, last = beating(BEAT_EVERY)
    assert pulse.verdict(True, last + LEAST_GRACE - 0.01).online
    late = pulse.verdict(True, last + LEAST_GRACE + 0.5)
    assert (late.online, round(late.silence, 6), late.known) == (False, LEAST_GRACE + 0.5, True)


def test_a_lost_link_is_told_at_once_though_its_silence_is_short() -> None:
    pulse, last = beating(BEAT_EVERY)
    assert not pulse.verdict(False, last).online


def test_a_busy_member_is_given_more_time_but_not_for_ever() -> None:
    busy, last = beating(1.2)
    assert busy.verdict(True, last + 2.3).online
    assert not busy.verdict(True, last + 2.5).online
    assert beating(30.0)[0].grace == MOST_GRACE


def test_patience_is_lost_again_with_regular_beats() -> None:
    pulse, now = beating(1.2)
    for _ in range(40):
        now += BEAT_EVERY
        pulse.beat(now)
    assert pulse.grace == LEAST_GRACE


def test_one_long_absence_teaches_no_patience() -> None:
    pulse, now = beating(BEAT_EVERY)
    pulse.beat(now + 3600)
    assert pulse.grace == LEAST_GRACE


def test_bursts_of_casts_do_not_hide_how_irregular_a_member_is() -> None:
    pulse, now = beating(1.2)
    for _ in range(100):
        now += 0.001
        pulse.beat(now)
    assert pulse.grace > 2


def test_who_was_never_heard_is_not_online_and_its_silence_counts_from_when_we_listened() -> None:
    verdict = Pulse(100.0).verdict(True, 130.0)
    assert (verdict.online, verdict.silence, verdict.known) == (False, 30.0, False)


def test_others_tell_how_long_a_member_is_silent_but_cannot_make_it_alive() -> None:
    pulse = Pulse(100.0)
    pulse.told(40.0)
    verdict = pulse.verdict(True, 100.1)
    assert (verdict.online, round(verdict.silence, 6), verdict.known) == (False, 60.1, True)
    pulse.told(99.9)
    assert not pulse.verdict(True, 100.1).online
    assert round(pulse.verdict(True, 100.1).silence, 6) == 0.2


def test_tales_that_go_round_do_not_grow_younger() -> None:
    one, two = Pulse(0.0), Pulse(0.0)
    one.beat(10.0)
    on_its_way = 0.01  # seconds, which the listener cannot know
    for _ in range(1000):
        two.told(100 - one.verdict(False, 100.0).silence + on_its_way)
        one.told(100 - two.verdict(False, 100.0).silence + on_its_way)
    assert one.verdict(False, 100.0).silence >= 89
    assert two.verdict(False, 100.0).silence >= 89


@pytest.mark.parametrize("clock", [1.7e9 + 0.01, 1.7e9 + 0.149, 1.7e9 + 0.151, 1.7e9 + 0.299, -7.1])
def test_all_beat_at_the_same_moments_and_nobody_twice_in_one(clock: float) -> None:
    wait = until_next(0.3, clock)
    assert 0.15 < wait <= 0.45
    assert (clock + wait) / 0.3 == pytest.approx(round((clock + wait) / 0.3), abs=1e-5)
