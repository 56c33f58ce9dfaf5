"""Trail: which rows changed from one state to another."""

from collections.abc import Sequence

Step = tuple[str, str]  # table and key of a row that was put or deleted
LONGEST = 20_000  # steps; whoever looks less often computes anew what it kept


class Trail:
    """The steps that led to one state; states that follow on each other share the list, each with its end.

    Made longer on one thread, read on any.
    """

    __slots__ = ("_end", "_steps")

    def __init__(self, steps: list[Step] | None = None) -> None:
        self._steps = [] if steps is None else steps
        self._end = len(self._steps)

    def after(self, steps: Sequence[Step]) -> "Trail":
        """That of the next state."""
        if len(self._steps) != self._end or self._end + len(steps) > LONGEST:
            return Trail()  # another state has followed on this one already; or it is long enough
        self._steps.extend(steps)
        return Trail(self._steps)

    def between(self, other: "Trail") -> Sequence[Step] | None:
        """All steps from the one to the other, whichever was first. None if they are not of one list."""
        if self._steps is not other._steps:
            return None
        first, last = sorted((self._end, other._end))
        return self._steps[first:last]
