from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Invalid
from lxdpy.rest.filter import parse

ROW = {
    "name": "c1",
    "status": "Running",
    "ephemeral": False,
    "size": 12,
    "config": {"user.x": "a b", "limits.cpu": "2"},
    "devices": {"eth0": {"type": "nic"}, "my.disk": {"type": "disk"}},
    "architecture": None,
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("   ", True),
        ("name eq c1", True),
        ("name eq C1", True),
        ("name ne c1", False),
        ("not name eq c1", False),
        ("not name ne c1", True),
        ("status eq running", True),
        ("ephemeral eq false", True),
        ("size eq 12", True),
        ('config.user.x eq "a b"', True),
        ("config.user.x eq 'a b'", True),
        ("config.limits.cpu eq 2", True),
        ("devices.eth0.type eq nic", True),
        ("devices.my.disk.type eq disk", True),
        ("config.missing eq x", False),
        ("config.missing ne x", True),
        ('architecture eq ""', True),
        ("name eq c1 and status eq stopped", False),
        ("name eq c2 or status eq running", True),
        ("name eq c2 and status eq x or size eq 12", True),
        ("name eq c1 or status eq x and size eq 13", False),
        ("NAME eq c1", False),
        ("name EQ c1 AND NOT status EQ stopped", True),
    ],
)
def test_a_row_passes_or_not(text: str, passes: bool) -> None:
    assert parse(text)(ROW) is passes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name", "no operator"),
        ("name eq", "no value"),
        ("not", "no field"),
        ("name gt 3", "eq or ne"),
        ("name eq a b", "and or or"),
        ("name eq a and", "no field"),
        ('name eq "a', "unterminated quote"),
    ],
)
def test_a_bad_filter_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse(text)


@given(st.text(alphabet="ab \"'\\.eqn", max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    with suppress(Invalid):
        parse(text)(ROW)
