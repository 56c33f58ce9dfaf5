"""Value types that speak of time: durations, expiries, schedules. Same rules as `types`."""

import re

import msgspec

SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
DAY = 86400  # seconds
EXPIRY = re.compile(r"([0-9]{1,6})([MHdwmy])")
ALIASES = ("@startup", "@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@annually", "@yearly")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
BETWEEN_SCHEDULES = re.compile(r",\s+|[,\s]+(?=@)")
SNAPSHOT_DATE = re.compile(
    r"""\{\{\s*creation_date\s*(?:\|\s*date\s*:\s*(?P<quote>["'])(?P<layout>[^"'{}]{1,80})(?P=quote)\s*)?\}\}"""
)
# minute, hour, day of month, month, weekday (7 is Sunday again): lowest, highest, names
FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, MONTHS), (0, 7, WEEKDAYS),
)  # fmt: skip


class Span(msgspec.Struct, frozen=True):
    """A stretch of calendar time: months have no fixed length, so they are kept apart."""

    months: int = 0
    seconds: int = 0

    def after(self, start: float) -> float:
        """The moment (unix seconds, UTC) this long after `start`. 31 January + 1 month is early March."""
        days, rest = divmod(start, DAY)
        year, month, day = _date(int(days))
        count = year * 12 + (month - 1) + self.months
        return _days(count // 12, count % 12 + 1, day) * DAY + rest + self.seconds


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01; a day past the month's end runs on into the next.

    Counted from 1 March, so that the leap day is a year's last: howardhinnant.github.io/date_algorithms.html.
    """
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719468


def _date(days: int) -> tuple[int, int, int]:
    """Year, month, day of so many days since 1970-01-01."""
    year = 1970 + days // 366
    while _days(year + 1, 1, 1) <= days:
        year += 1
    month = 12
    while _days(year, month, 1) > days:
        month -= 1
    return year, month, days - _days(year, month, 1) + 1


def duration(value: str) -> float:
    """Seconds, from `90`, `10m`, `1h30m`; days and weeks too. `-1` stands for as long as it takes."""
    if value == "-1":
        return -1.0
    parts = re.findall(r"([0-9]{1,9})(ms|[smhdw]|$)", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError("a duration, such as 90s, 10m or 1h30m, or -1 for no end")
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


def expiry(value: str) -> Span:
    """LXD's form: `3H`, `2d`, `1y 6m`; M minutes, H hours, d days, w weeks, m months, y years."""
    totals = dict.fromkeys("MHdwmy", 0)
    for part in value.split():
        found = EXPIRY.fullmatch(part)
        if not found or totals[found[2]]:
            raise ValueError("an expiry, such as 30M, 3H, 2d, 1w, 6m or 1y, each unit once")
        totals[found[2]] = int(found[1])
    if not any(totals.values()) and not value.strip():
        raise ValueError("an expiry, such as 30M, 3H, 2d, 1w, 6m or 1y")
    hours = totals["H"] + 24 * (totals["d"] + 7 * totals["w"])
    return Span(months=totals["m"] + 12 * totals["y"], seconds=60 * totals["M"] + 3600 * hours)


def cron(value: str) -> tuple[str, ...]:
    """The schedules, each an alias (`@daily`) or five fields; several by commas and blanks."""
    parts = schedules(value)
    for part in parts:
        fields = part.split()
        if part not in ALIASES and (len(fields) != len(FIELDS) or not all(map(_is_field, fields, FIELDS))):
            raise ValueError(
                "a schedule: five cron fields (minute hour day month weekday) or " + ", ".join(ALIASES)
            )
    return parts


def schedules(value: str) -> tuple[str, ...]:
    """What `cron` reads, unchecked. Between fields' numbers a comma has no blank behind it."""
    return tuple(" ".join(part.split()) for part in BETWEEN_SCHEDULES.split(value.strip()))


def snapshot_pattern(value: str) -> str:
    """A name, in which `%d` may count and `{{ creation_date|date:"2006-01-02" }}` is a date."""
    rest = SNAPSHOT_DATE.sub("", value)
    if rest.count("%d") > 1 or re.search(r"[{}\s/]|[^ -~]", rest) or len(value) > 200:
        raise ValueError(
            "a pattern for names: %d at most once, {{ creation_date|date:'2006-01-02_15-04-05' }}, "
            "no blanks or slashes"
        )
    return value


def _is_field(field: str, rule: tuple[int, int, tuple[str, ...]]) -> bool:
    low, high, names = rule
    for item in field.split(","):
        span, slash, step = item.partition("/")
        if slash and not (step.isdecimal() and step.isascii() and 0 < int(step) <= high):
            return False
        if span == "*":
            continue
        ends = [_ordinal(end, low, names) for end in span.split("-")]
        if len(ends) > 2 or not all(low <= end <= high for end in ends) or ends != sorted(ends):
            return False
    return True


def _ordinal(word: str, low: int, names: tuple[str, ...]) -> int:
    """What a number or a month's or weekday's name counts; -1 if it is neither."""
    if word.lower() in names:
        return low + names.index(word.lower())
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 4 else -1
