"""Layers behave as a dict that is copied before each change."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.state import layers
from cluster.state.layers import Layers

KEYS = st.sampled_from("abcdefgh")
ACTS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "delete", "copy", "look"]), KEYS), max_size=60
)


def same(rows: Layers, model: Mapping[str, int]) -> None:
    assert len(rows) == len(model)
    assert all(rows.get(key) == model.get(key) for key in "abcdefgh")
    assert all((key in rows) == (key in model) for key in "abcdefgh")


@given(ACTS)
def test_they_are_a_dict_in_its_order_and_copies_are_apart(acts: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "FEW", 1)
        rows, model = Layers(), dict[str, int]()
        kept: list[tuple[Layers, dict[str, int]]] = []
        for number, (act, key) in enumerate(acts):
            if act == "put":
                rows.put(key, number)
                model[key] = number
            elif act == "delete" and key in model:
                rows.delete(key)
                del model[key]
            elif act == "copy":
                kept.append((rows, dict(model)))
                rows = rows.copy()
            elif act == "look":
                assert list(rows.items()) == list(model.items())
            same(rows, model)
        for before, expected in kept:
            same(before, expected)
            assert list(before) == list(expected)
            assert list(before.values()) == list(expected.values())


def test_what_is_not_there_cannot_be_deleted_or_found() -> None:
    rows = Layers({"a": 1})
    rows.put("b", 2)
    for key in "bc":
        if key in rows:
            rows.delete(key)
        with pytest.raises(KeyError):
            rows.delete(key)
        with pytest.raises(KeyError):
            rows[key]
    assert rows["a"] == 1


def test_a_change_of_a_large_table_copies_little() -> None:
    rows = Layers({str(number): number for number in range(10_000)})
    for number in range(99):
        rows = rows.copy()
        rows.put(f"new{number}", number)
    base, over = rows._layers
    assert (len(base), len(over)) == (10_000, 99)
    for number in range(10):
        rows = rows.copy()
        rows.put(f"newer{number}", number)
    assert len(rows._layers[1]) < 10
