from datetime import UTC, datetime

import pytest

from lxdpy.resources.snapshots.model import Slot
from lxdpy.resources.snapshots.slots import AHEAD, Step, latest, next_step


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOON = at("2026-11-25T12:00:00")  # a Wednesday
MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("schedule", "found"),
    [
        ("@hourly", "2026-11-25T12:00:00"),
        ("30 11 * * *", "2026-11-25T11:30:00"),
        ("1 12 * * *", "2026-11-24T12:01:00"),
        ("*/7 3 * * mon", "2026-11-23T03:56:00"),
        ("@daily", "2026-11-25T00:00:00"),
        ("@weekly", "2026-11-22T00:00:00"),
        ("@monthly, @weekly", "2026-11-22T00:00:00"),
        ("@yearly", "2026-01-01T00:00:00"),
        ("@startup @daily", "2026-11-25T00:00:00"),
    ],
)
def test_the_last_slot_of_a_schedule(schedule: str, found: str) -> None:
    assert latest(schedule, NOON) == latest(schedule, NOON + 59) == at(found)


@pytest.mark.parametrize("schedule", ["", "@never", "@startup", "0 0 31 2 *"])
def test_a_schedule_may_have_no_slots(schedule: str) -> None:
    assert latest(schedule, NOON) == 0


def test_a_slot_is_taken_once_however_often_one_looks() -> None:
    slot = Slot("@hourly", NOON - MINUTE)
    step = next_step(slot, "@hourly", NOON, NOON - MINUTE)
    assert step == Step(Slot("@hourly", NOON), take=True)
    for later in (0, 1, MINUTE, HOUR - 1):
        assert next_step(step.slot, "@hourly", NOON + later, NOON) is None
    assert next_step(step.slot, "@hourly", NOON + HOUR, NOON) == Step(Slot("@hourly", NOON + HOUR), take=True)


def test_what_was_before_the_schedule_is_not_made_good() -> None:
    for before in (None, Slot("@daily", NOON - DAY)):
        assert next_step(before, "@hourly", NOON + 5, NOON + 4) == Step(Slot("@hourly", NOON + 4), take=False)


def test_of_slots_that_nobody_saw_the_last_is_taken() -> None:
    step = next_step(Slot("@hourly", NOON - DAY), "@hourly", NOON + 5 * MINUTE, NOON)
    assert step == Step(Slot("@hourly", NOON), take=True)


def test_a_clock_that_jumps_back_repeats_no_slot() -> None:
    for back in (MINUTE, HOUR, DAY - 1):
        assert next_step(Slot("@hourly", NOON), "@hourly", NOON - back, NOON) is None


def test_a_clock_that_was_far_ahead_does_not_end_all_snapshots() -> None:
    assert next_step(Slot("@hourly", NOON), "@hourly", NOON - AHEAD - 1, NOON) == Step(
        Slot("@hourly", NOON - AHEAD - 1), take=False
    )


def test_slots_before_the_last_start_are_gone() -> None:
    assert next_step(Slot("@hourly", NOON - DAY), "@hourly", NOON + 5, NOON, since=NOON + 1) is None


@pytest.mark.parametrize("schedule", ["", "@never"])
def test_a_schedule_that_is_taken_away_is_forgotten(schedule: str) -> None:
    assert next_step(Slot("@hourly", NOON), schedule, NOON, NOON) == Step(None, take=False)
    assert next_step(None, schedule, NOON, NOON) is None


def test_a_schedule_that_was_set_just_before_its_slot_is_followed() -> None:
    step = next_step(None, "@hourly", NOON + 1, NOON - MINUTE)
    assert step == Step(Slot("@hourly", NOON), take=True)
