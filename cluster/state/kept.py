"""Kept: what is computed from a state, and brought to other states by the rows that changed."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from cluster.state.trail import Step, Trail
from cluster.state.txn import State

Value = TypeVar("Value")
Answer = TypeVar("Answer")


class Kept(Generic[Value]):
    """Something that depends on the state alone, but takes long to make from all of it.

    `renew` is told which rows may differ, and changes the value in place: from any state to any other, an
    earlier one too. So nobody gets the value itself, but what `read` makes of it. Any thread may ask; it has
    the value for itself meanwhile, and another makes one of its own.
    """

    def __init__(
        self, make: Callable[[State], Value], renew: Callable[[Value, State, Iterable[Step]], None]
    ) -> None:
        self._make = make
        self._renew = renew
        self._known: list[tuple[Trail, Value]] = []  # one at most; none while somebody has it

    def ask(self, state: State, read: Callable[[Value], Answer]) -> Answer:
        value = self._brought_to(state)
        answer = read(value)
        self._known[:] = [(state.trail, value)]
        return answer

    def _brought_to(self, state: State) -> Value:
        try:
            trail, value = self._known.pop()
        except IndexError:
            return self._make(state)
        steps = trail.between(state.trail)
        if steps is None:
            return self._make(state)
        if steps:
            self._renew(value, state, dict.fromkeys(steps))
        return value
