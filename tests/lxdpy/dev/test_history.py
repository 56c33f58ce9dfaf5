"""The checker finds what a register cannot have answered, and nothing else."""

import random
from collections.abc import Sequence
from itertools import permutations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdpy.dev.history import Call, Kind, Outcome, complaints, search
from tests.effort import examples


def read(value: str, began: float, ended: float) -> Call:
    return Call("k", "read", value, began, ended)


def write(value: str, began: float, ended: float = inf, outcome: Outcome = "applied") -> Call:
    return Call("k", "write", value, began, ended, outcome)


def swap(expected: str, value: str, began: float, ended: float = inf, outcome: Outcome = "applied") -> Call:
    return Call("k", "swap", value, began, ended, outcome, expected)


GOOD: dict[str, Sequence[Call]] = {
    "nothing happened": [],
    "one after the other": [write("a", 1, 2), read("a", 3, 4), swap("a", "b", 5, 6), read("b", 7, 8)],
    "a read beside a write sees the value before it": [write("a", 1, 4), read("", 2, 3)],
    "a read beside a write sees the value after it": [write("a", 1, 4), read("a", 2, 3)],
    "two writes at once, in the order of the reads": [
        write("a", 1, 9), write("b", 1, 9), read("b", 2, 3), read("a", 4, 5),
    ],
    "an unknown write happened long after": [
        write("a", 1, outcome="unknown"), read("", 2, 3), write("b", 4, 5), read("b", 6, 7), read("a", 8, 9),
    ],
    "an unknown write never happened": [write("a", 1, outcome="unknown"), read("", 2, 3)],
    "an unknown swap happened": [write("a", 1, 2), swap("a", "b", 3, outcome="unknown"), read("b", 4, 5)],
    "a swap was refused for another value": [write("a", 1, 2), swap("", "b", 3, 4, "refused")],
    "a swap was refused because of an unknown write that nobody saw": [
        write("a", 1, outcome="unknown"), swap("", "b", 2, 3, "refused"),
    ],
    "what was not applied is not there": [write("a", 1, 2, "not applied"), read("", 3, 4)],
}  # fmt: skip

BAD: dict[str, Sequence[Call]] = {
    "an acknowledged write is lost": [write("a", 1, 2), read("", 3, 4)],
    "a read is stale": [write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)],
    "a read is stale though the newer value was seen": [
        write("a", 1, 2), write("b", 3, 9), read("b", 4, 5), read("a", 6, 7),
    ],
    "a value comes from nowhere": [read("a", 1, 2)],
    "a value was seen before it was written": [read("a", 1, 2), write("a", 3, 4)],
    "a write was done twice": [
        write("a", 1, 9), read("a", 2, 3), write("b", 4, 5), read("b", 6, 7), read("a", 7.5, 8),
    ],
    "an unknown write was done twice": [
        write("a", 1, outcome="unknown"), read("a", 2, 3), write("b", 4, 5), read("a", 6, 7),
    ],
    "two swaps took the same value": [swap("", "a", 1, 2), swap("", "b", 3, 4)],
    "a swap was refused though the value was there": [write("a", 1, 2), swap("a", "b", 3, 4, "refused")],
    "a refused swap was done": [write("a", 1, 2), swap("", "b", 3, 4, "refused"), read("b", 5, 6)],
    "what was not applied is there": [write("a", 1, 2, "not applied"), read("a", 3, 4)],
    "what was not applied was swapped": [write("a", 1, 2, "not applied"), swap("a", "b", 3, 4)],
    "an unknown swap came upon a value that was gone": [
        write("a", 1, 2), write("b", 3, 4), swap("a", "c", 5, outcome="unknown"), read("c", 6, 7),
    ],
}  # fmt: skip


@pytest.mark.parametrize("calls", GOOD.values(), ids=GOOD)
def test_all_is_well_when(calls: Sequence[Call]) -> None:
    assert list(complaints(calls)) == []


@pytest.mark.parametrize("calls", BAD.values(), ids=BAD)
def test_it_is_found_when(calls: Sequence[Call]) -> None:
    assert list(complaints(calls))


def test_keys_are_apart() -> None:
    calls = [Call("one", "write", "a", 1, 2), Call("two", "read", "a", 3, 4)]
    [only] = complaints(calls)
    assert "two" in only
    assert "one" not in only


def test_a_complaint_names_the_calls_that_do_not_fit() -> None:
    [only] = complaints([write("a", 1, 2), write("b", 3, 4), Call("k", "read", "a", 5, 6, member="n2")])
    assert "2 of 3" in only
    assert "read 'a' at n2" in only


CALLS = st.builds(
    lambda kind, value, expected, began, length, unknown: Call(
        "k",
        kind,
        value,
        began,
        inf if unknown and kind != "read" else began + length,
        "unknown" if unknown and kind != "read" else "applied",
        expected,
    ),
    st.sampled_from(["read", "write", "swap"]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "a", "b"]),
    st.integers(0, 6),
    st.integers(1, 4),
    st.booleans(),
)


@given(st.lists(CALLS, max_size=5))
@examples(300)
def test_the_search_agrees_with_trying_every_order(calls: list[Call]) -> None:
    wanted = {place for place, call in enumerate(calls) if call.ended != inf}
    assert (search(calls, "") == "") == any(
        explains([calls[place] for place in order])
        for size in range(len(calls) + 1)
        for order in permutations(range(len(calls)), size)
        if wanted <= set(order)
    )


def explains(order: Sequence[Call]) -> bool:
    value = ""
    for place, call in enumerate(order):
        if any(later.ended < call.began for later in order[place + 1 :]):
            return False
        if call.kind != "write" and (call.value if call.kind == "read" else call.expected) != value:
            return False
        value = call.value
    return True


def history(seed: int, count: int = 400, clients: int = 6) -> list[Call]:
    """What clients of a true register hear: it acts at a random instant within each call; some answers are
    lost.
    """
    dice = random.Random(seed)
    free = [0.0] * clients
    plans = []
    for number in range(count):
        client = dice.randrange(clients)
        began = free[client] + dice.random() * 0.1
        free[client] = began + dice.random()
        plans.append((dice.uniform(began, free[client]), number, began, free[client]))
    value, before, calls = "", "", []
    for _, number, began, ended in sorted(plans):
        kind: Kind = dice.choice(["read", "write", "swap"])
        lost = kind != "read" and dice.random() < 0.2
        expected = dice.choice([value, before]) if kind == "swap" else ""
        refused = kind == "swap" and expected != value
        put = value if kind == "read" else f"v{number}"
        if kind != "read" and not refused:
            before, value = value, put
        outcome: Outcome = "unknown" if lost else "refused" if refused else "applied"
        calls.append(Call("k", kind, put, began, inf if lost else ended, outcome, expected))
    return calls


@pytest.mark.parametrize("seed", range(10))
def test_a_long_history_of_a_true_register_is_explained(seed: int) -> None:
    assert list(complaints(history(seed))) == []


@pytest.mark.parametrize("seed", range(10))
def test_one_read_too_old_in_a_long_history_is_found(seed: int) -> None:
    calls = history(seed)
    values = [call.value for call in calls if call.kind == "write" and call.outcome == "applied"]
    late = max((call for call in calls if call.kind == "read"), key=lambda call: call.began)
    stale = [Call("k", "read", values[0], call.began, call.ended) if call is late else call for call in calls]
    assert list(complaints(stale))
