import pytest

from lxdpy.dev.bench.figures import Measure, Result, result
from lxdpy.dev.bench.table import number, table


def made(name: str, **peers: list[list[float]]) -> Result:
    found = result(Measure(name, name, "ms", "<= 0.5"), peers)
    assert found
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.00123456, "0.00123"), (0.25, "0.25"), (1.5, "1.50"), (12.34, "12.3"),
        (123.4, "123"), (45678.9, "45679"), (-12.34, "-12.3"),
    ],
)  # fmt: skip
def test_a_number_has_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_one_peer_needs_no_ratio() -> None:
    head, line = table([made("start", lxdpy=[[12.0, 10.0, 15.0]])], ["lxdpy"]).splitlines()
    assert "ratio" not in head
    assert line.split("  ")[-1] == "12.0 (10.0-15.0, 3)"


def test_two_peers_are_compared() -> None:
    lines = table([made("start", lxdpy=[[12.0]], lxd=[[120.0]])], ["lxdpy", "lxd"]).splitlines()
    assert lines[0].split()[-2:] == ["ratio", "goal"]
    assert "0.1 x" in lines[1]
    assert lines[1].endswith("<= 0.5")


def test_columns_line_up() -> None:
    head, short, long = table(
        [made("a", lxdpy=[[1.0]]), made("a longer name", lxdpy=[[1.0]])], ["lxdpy"]
    ).splitlines()
    assert head.index("unit") == short.index("ms") == long.index("ms")


def test_what_a_peer_did_not_give_is_a_dash() -> None:
    line = table([made("start", lxdpy=[[]], lxd=[[2.0]])], ["lxdpy", "lxd"]).splitlines()[1]
    assert line.split()[:3] == ["start", "ms", "-"]
    assert line.split()[-3:] == ["-", "<=", "0.5"], "no ratio either"
