from datetime import UTC, datetime

import pytest

from cluster.errors import Invalid
from lxdpy.config.instance import INSTANCE
from lxdpy.config.key import BadValue
from lxdpy.resources.snapshots.names import check_name, next_name

MOMENT = datetime(2024, 3, 5, 16, 7, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "taken", "name"),
    [
        ("snap%d", (), "snap0"),
        ("snap%d", ("snap0", "snap7", "snapx", "mysnap9"), "snap8"),
        ("daily", (), "daily"),
        ("daily", ("daily", "daily-3"), "daily-4"),
        ("daily", ("daily",), "daily-0"),
        ("{{ creation_date|date:'2006-01-02_15-04-05' }}", (), "2024-03-05_16-07-09"),
        ('a-{{creation_date | date:"06Jan2"}}-%d', ("a-24Mar5-0",), "a-24Mar5-1"),
        ("{{ creation_date }}", (), "2024-03-05_16:07:09"),
        ("a.b%d", ("aXb5",), "a.b0"),
    ],
)
def test_the_next_name_follows_the_pattern(pattern: str, taken: tuple[str, ...], name: str) -> None:
    INSTANCE.check({"snapshots.pattern": pattern})
    assert next_name(pattern, taken, MOMENT) == name


@pytest.mark.parametrize(
    "pattern", ["%d-%d", "a b", "a/b", "{{ instance.name }}", "{{ creation_date", "{% x %}"]
)
def test_a_pattern_that_makes_no_name_is_refused(pattern: str) -> None:
    with pytest.raises(BadValue, match=r"snapshots\.pattern"):
        INSTANCE.check({"snapshots.pattern": pattern})


@pytest.mark.parametrize("name", ["a b", "a/b", "", ".", "..", "a\tb", "a\0b", "x" * 201])
def test_a_name_that_makes_no_url_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


def test_other_names_are_fine() -> None:
    for name in ("s0", "2024-03-05", "vor_dem_Umbau", "größer", "a.b"):
        check_name(name)
