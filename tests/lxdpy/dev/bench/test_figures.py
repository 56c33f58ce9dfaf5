import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdpy.dev.bench.figures import Measure, as_json, ratios, result, summary

START = Measure("start", "start", "ms", "<= 0.2")
SAMPLES = st.lists(st.floats(0.001, 1e6), min_size=1)


def test_a_summary_has_the_middle_the_ends_and_the_count() -> None:
    found = summary([5.0, 1.0, 9.0, 2.0])
    assert found
    assert (found.median, found.min, found.max, found.n) == (3.5, 1.0, 9.0, 4)


def test_nothing_measured_is_no_summary() -> None:
    assert summary([]) is None


@given(SAMPLES)
def test_the_median_lies_between_the_ends(samples: list[float]) -> None:
    found = summary(samples)
    assert found
    assert found.min <= found.median <= found.max


def test_ratios_are_taken_within_each_pair_of_turns() -> None:
    """The second pair was measured on a machine ten times slower, which says nothing of either peer."""
    assert ratios([[1.0, 3.0], [20.0]], [[4.0], [40.0]]) == (0.5, 0.5)


def test_a_turn_that_gave_nothing_has_no_ratio() -> None:
    assert ratios([[], [2.0], [3.0]], [[1.0], [4.0], [0.0]]) == (0.5,)


def test_the_median_of_the_ratios_is_told_not_the_ratio_of_the_medians() -> None:
    found = result(START, {"lxdpy": [[1.0], [1.0], [30.0]], "lxd": [[10.0], [2.0], [100.0]]})
    assert found
    assert found.ratio == pytest.approx(0.3)
    assert found.peers["lxdpy"].median / found.peers["lxd"].median == pytest.approx(0.1)


def test_one_peer_alone_has_no_ratio() -> None:
    found = result(START, {"lxdpy": [[1.0], [2.0]]})
    assert found
    assert found.ratio is None
    assert found.peers["lxdpy"].n == 2


def test_a_measure_without_samples_is_no_result() -> None:
    assert result(START, {"lxdpy": [[], []], "lxd": [[]]}) is None


def test_a_peer_without_samples_is_left_out() -> None:
    found = result(START, {"lxdpy": [[]], "lxd": [[2.0]]})
    assert found
    assert list(found.peers) == ["lxd"]


def test_json_has_facts_and_figures_by_name() -> None:
    found = result(START, {"lxdpy": [[1.0]], "lxd": [[10.0]]})
    assert found
    written = json.loads(as_json([found], {"cpus": 2}))
    assert written["cpus"] == 2
    assert written["measures"]["start"] == {
        "title": "start", "unit": "ms", "goal": "<= 0.2", "ratio": 0.1, "ratios": [0.1],
        "lxdpy": {"median": 1.0, "min": 1.0, "max": 1.0, "n": 1},
        "lxd": {"median": 10.0, "min": 10.0, "max": 10.0, "n": 1},
    }  # fmt: skip
