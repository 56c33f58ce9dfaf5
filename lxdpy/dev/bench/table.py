"""Results as text."""

from collections.abc import Iterable, Sequence

from lxdpy.dev.bench.figures import Result, Summary

DIGITS = 3  # that mean anything, of any figure


def table(results: Iterable[Result], peers: Sequence[str]) -> str:
    """One line a measure: median, and in brackets least, most and how many; ours first."""
    compared = len(peers) == 2
    head = ["measure", "unit", *(f"{peer}: median (min-max, n)" for peer in peers)]
    lines = [[*head, "ratio", "goal"] if compared else head]
    for each in results:
        row = [each.measure.title, each.measure.unit, *(cell(each.peers.get(peer)) for peer in peers)]
        if compared:
            row += [f"{number(each.ratio)} x" if each.ratio is not None else "-", each.measure.goal]
        lines.append(row)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cell(figures: Summary | None) -> str:
    if figures is None:
        return "-"
    return f"{number(figures.median)} ({number(figures.min)}-{number(figures.max)}, {figures.n})"


def number(value: float) -> str:
    """Three digits that count; whole numbers from a hundred on."""
    if value == 0:
        return "0"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole:
        return f"{value:.{max(0, DIGITS - whole)}f}"
    return f"{value:.{DIGITS}g}"
