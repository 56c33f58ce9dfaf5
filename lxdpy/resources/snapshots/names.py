"""Names of snapshots: which are allowed, and those that `snapshots.pattern` makes."""

import re
from collections.abc import Collection
from datetime import datetime

from cluster.errors import Invalid
from lxdpy.config.times import SNAPSHOT_DATE
from lxdpy.resources.wire import check_name as check_any

LONGEST = 200  # characters; the URL's part must also fit where it is percent-encoded

# Go writes layouts as one moment: Monday, 2 January 2006, 15:04:05. Longest first.
LAYOUT = {
    "January": "%B", "Monday": "%A", "2006": "%Y", "Jan": "%b", "Mon": "%a", "MST": "%Z", "-0700": "%z",
    "01": "%m", "02": "%d", "03": "%I", "04": "%M", "05": "%S", "06": "%y", "15": "%H", "PM": "%p",
    "2": "%-d", "1": "%-m", "3": "%-I", "4": "%-M", "5": "%-S",
}  # fmt: skip
PARTS = re.compile("|".join(map(re.escape, LAYOUT)))
PLAIN = "2006-01-02 15:04:05"  # of a date that no layout is given for


def check_name(name: str, noun: str = "instance") -> None:
    """Of a snapshot of a `noun`. Raises Invalid."""
    wrong = f"Invalid {noun} snapshot name"
    if re.search(r"[\s/]", name):
        raise Invalid(f"{wrong}: Cannot contain space or / characters", key="name", value=name)
    check_any("Snapshot", name)
    if len(name) > LONGEST or not name.isprintable():
        raise Invalid(f"{wrong}: at most {LONGEST} printable characters", key="name", value=name)


def next_name(pattern: str, taken: Collection[str], moment: datetime) -> str:
    """The next name of a checked pattern: dates filled in, `%d` counted up from what is there.

    A pattern without `%d` gives its name once, and then `name-0`, `name-1`.
    """
    name = SNAPSHOT_DATE.sub(lambda found: dated(moment, found["layout"] or PLAIN), pattern)
    name = re.sub(r"[\s/]", "_", name)
    if "%d" not in name:
        if name not in taken:
            return name
        name += "-%d"
    before, after = name.split("%d")
    shape = re.compile(re.escape(before) + r"([0-9]{1,9})" + re.escape(after))
    counted = [int(found[1]) for one in taken if (found := shape.fullmatch(one))]
    return f"{before}{max(counted, default=-1) + 1}{after}"


def dated(moment: datetime, layout: str) -> str:
    """The moment in Go's way of writing a layout."""
    words = PARTS.sub(lambda found: LAYOUT[found[0]], layout.replace("%", "%%"))
    return moment.strftime(words)
