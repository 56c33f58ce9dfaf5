"""What verbs print: tables, YAML, JSON on stdout; what they are about to do on stderr."""

from collections.abc import Iterable, Sequence

import click
import msgspec
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000  # columns: cells are never folded or cut, so that what is printed can be copied or read by grep
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    made = Table(*headers, header_style="", show_lines=True)
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    Console(width=WIDE, highlight=False).print(made)


def as_yaml(value: object) -> None:
    shown = yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True)
    click.echo(shown, nl=False)


def as_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def note(text: str) -> None:
    """Progress, and what is not the answer itself: pipes do not get it."""
    click.echo(text, err=True)


def size(count: int) -> str:
    """Bytes as people read them: 40GiB, 1.2MiB; "-" for 0, which stands for unknown."""
    if not count:
        return "-"
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + UNITS[unit]
