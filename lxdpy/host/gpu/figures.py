"""What a card does just now, as its driver tells."""

import msgspec


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """None is not known."""

    busy: float | None = None  # share of time in which it computed or drew, 0 to 1
    memory_used: int | None = None  # bytes
    temperature: float | None = None  # °C
    power: float | None = None  # W
    energy: float | None = None  # J, since its driver was loaded


NOTHING = Figures()
