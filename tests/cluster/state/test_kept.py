"""What is kept of one state and brought to another is what would be made of that anew."""

from collections.abc import Iterable
from random import Random

import pytest

from cluster.state import trail
from cluster.state.kept import Kept
from cluster.state.table import Stored, Table
from cluster.state.trail import Step
from cluster.state.txn import Draft, State


class Thing(Stored, frozen=True):
    weight: int


THINGS: Table[Thing] = Table("things", Thing)
OTHERS: Table[Thing] = Table("others", Thing)


class Weights(dict[str, int]):
    """Of all things; how often each was weighed."""

    weighed = 0

    def __init__(self, state: State) -> None:
        super().__init__()
        self.renew(state, ((THINGS.name, key) for key in state.rows(THINGS)))

    def renew(self, state: State, steps: Iterable[Step]) -> None:
        for table, key in steps:
            row = state.find(THINGS, key)
            if table == THINGS.name and row:
                self.weighed += 1
                self[key] = row.weight
            elif table == THINGS.name:
                self.pop(key, None)


def after(state: State, *rows: tuple[str, int | None], table: Table[Thing] = THINGS) -> State:
    """With these rows put, or deleted where there is no weight."""
    draft = Draft(state, state.index + 1)
    for key, weight in rows:
        if weight is None:
            draft.delete(table.name, key)
        else:
            draft.put(table.name, key, Thing(weight))
    return draft.publish()


def weights(state: State) -> dict[str, int]:
    return {key: row.weight for key, row in state.rows(THINGS).items()}


def test_it_is_true_of_every_state_whichever_was_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "LONGEST", 20)  # so that lists end within the test
    dice = Random(7)
    kept = Kept(Weights, Weights.renew)
    states = [State()]
    for _ in range(400):
        state = dice.choice(states[-3:])  # now and then two follow on one
        key = dice.choice("abcd")
        gone = state.find(THINGS, key) and dice.random() < 0.3
        states.append(after(state, (key, None if gone else dice.randrange(9))))
        asked = dice.choice(states[-6:])
        assert kept.ask(asked, dict) == weights(asked)


def test_only_what_changed_is_looked_at_again() -> None:
    kept = Kept(Weights, Weights.renew)
    state = after(State(), *((str(number), number) for number in range(50)))
    assert kept.ask(state, lambda value: value.weighed) == 50
    state = after(state, ("7", 70), ("7", 71), ("8", None))
    assert kept.ask(state, lambda value: (value.weighed, value["7"])) == (51, 71)
    state = after(state, ("7", 0), table=OTHERS).at(99)
    assert kept.ask(state, lambda value: value.weighed) == 51


def test_what_could_not_be_brought_on_is_made_anew() -> None:
    first = after(State(), ("a", 1))
    second = after(first, ("a", 2))

    def broken(value: Weights, state: State, steps: Iterable[Step]) -> None:
        value.clear()
        raise RuntimeError("half of it done")

    kept = Kept(Weights, broken)
    assert kept.ask(first, dict) == {"a": 1}
    with pytest.raises(RuntimeError, match="half"):
        kept.ask(second, dict)
    assert kept.ask(second, dict) == {"a": 2}
