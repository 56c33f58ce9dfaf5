"""Events on the wire."""

from typing import Any, Literal

import msgspec

Type = Literal["operation", "logging", "lifecycle"]
TYPES: tuple[Type, ...] = ("operation", "logging", "lifecycle")


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame of the stream; fields in LXD's order, the last two left out where they are empty."""

    type: Type
    timestamp: str  # RFC 3339
    metadata: Any
    location: str = ""  # name of the member it comes from
    project: str = ""
