import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdpy.config.times import DAY, Span, cron, duration, expiry


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90", 90), ("10m", 600), ("1h30m", 5400), ("1d", 86400), ("250ms", 0.25), ("-1", -1), ("0", 0)],
)
def test_durations(value: str, seconds: float) -> None:
    assert duration(value) == seconds


@pytest.mark.parametrize("value", ["", "m", "10 m", "10x", "-2", "1h-30m", "1.5h"])
def test_what_is_no_duration(value: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        duration(value)


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("3H", Span(seconds=3 * 3600)),
        ("30M", Span(seconds=1800)),
        ("2d 12H", Span(seconds=60 * 3600)),
        ("1w", Span(seconds=7 * DAY)),
        ("1y 6m", Span(months=18)),
    ],
)
def test_expiries(value: str, span: Span) -> None:
    assert expiry(value) == span


@pytest.mark.parametrize("value", ["3", "3h", "H", "1d 2d", "3H,2d", " "])
def test_what_is_no_expiry(value: str) -> None:
    with pytest.raises(ValueError, match="an expiry"):
        expiry(value)


@given(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2200, 1, 1)), st.integers(0, 600))
def test_months_are_added_as_a_calendar_does(start: datetime.datetime, months: int) -> None:
    begin = start.replace(microsecond=0, tzinfo=datetime.UTC)
    count = begin.year * 12 + begin.month - 1 + months
    first = begin.replace(year=count // 12, month=count % 12 + 1, day=1)
    wanted = first + datetime.timedelta(days=begin.day - 1)
    assert Span(months=months).after(begin.timestamp()) == wanted.timestamp()


def test_seconds_are_added_to_the_fraction() -> None:
    assert Span(seconds=10).after(1.5) == 11.5


@pytest.mark.parametrize(
    "value",
    [
        "* * * * *",
        "*/5 0-6 1,15 jan mon-fri",
        "0 6 * * 7",
        "@daily",
        "@hourly, @startup",
        "0 6 * * *, @daily",
        "0-30/10 * * * *",
    ],
)
def test_schedules(value: str) -> None:
    assert cron(value)


@pytest.mark.parametrize(
    "value",
    ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "* * * *", "*/0 * * * *",
     "5-1 * * * *", "a * * * *", "@often", "@daily * * * *", "1-2-3 * * * *",
     "", "* * * * *,", "@daily, ", "0, 6 * * *", "٣ * * * *"],
)  # fmt: skip
def test_what_is_no_schedule(value: str) -> None:
    with pytest.raises(ValueError, match="a schedule"):
        cron(value)


def test_several_aliases_are_several_schedules() -> None:
    assert cron("@daily,@weekly") == ("@daily", "@weekly")
    assert cron("0  6 * * *") == ("0 6 * * *",)
    assert cron("0 6,7 * * *, 30 8 * * 1,2 @daily") == ("0 6,7 * * *", "30 8 * * 1,2", "@daily")
