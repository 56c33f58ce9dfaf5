"""Samples, and what is told of them."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import msgspec

Blocks = Sequence[Sequence[float]]
"""What one peer's turns gave, a sequence of samples a turn."""


class Measure(msgspec.Struct, frozen=True):
    """Something that can be told of a daemon by a number."""

    name: str  # what --only takes, and the key in JSON
    title: str
    unit: str
    goal: str = ""  # what the ratio to LXD's should come to, for the reader


class Summary(msgspec.Struct, frozen=True):
    median: float
    min: float
    max: float
    n: int


class Result(msgspec.Struct, frozen=True):
    """One measure: each peer's figures and, if there are two peers, ours to the other's."""

    measure: Measure
    peers: Mapping[str, Summary]
    ratios: tuple[float, ...] = ()

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None


def summary(samples: Iterable[float]) -> Summary | None:
    """None if there are no samples."""
    known = sorted(samples)
    return Summary(median(known), known[0], known[-1], len(known)) if known else None


def ratios(ours: Blocks, theirs: Blocks) -> tuple[float, ...]:
    """Of the medians of each pair of turns. A turn that gave nothing, or 0, has no ratio."""
    pairs = [(median(a), median(b)) for a, b in zip(ours, theirs, strict=False) if a and b]
    return tuple(a / b for a, b in pairs if b)


def result(measure: Measure, turns: Mapping[str, Blocks]) -> Result | None:
    """`turns` by peer, ours first. None if no peer gave a sample."""
    found = {peer: summary(sample for block in blocks for sample in block) for peer, blocks in turns.items()}
    peers = {peer: figures for peer, figures in found.items() if figures}
    if not peers:
        return None
    pair = list(turns.values())
    return Result(measure, peers, ratios(*pair) if len(pair) == 2 else ())


def as_json(results: Iterable[Result], facts: Mapping[str, object]) -> bytes:
    """Facts of the run, and the results by name."""
    measures = {
        each.measure.name: {
            "title": each.measure.title, "unit": each.measure.unit, **msgspec.to_builtins(each.peers),
            "ratios": each.ratios, "ratio": each.ratio, "goal": each.measure.goal,
        }
        for each in results
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode({**facts, "measures": measures}), indent=2) + b"\n"
