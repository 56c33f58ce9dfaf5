"""What a value says, whatever version says it: by value, and without what is as it is by default."""

from functools import cache
from typing import Any

import msgspec


def plain(value: Any) -> Any:
    """`value` of maps and lists only; of its structs, the fields that are not what they are by default."""
    if isinstance(value, msgspec.Struct):
        pairs = ((name, getattr(value, name), default) for name, default in _defaults(type(value)))
        return {name: plain(field) for name, field, default in pairs if field != default}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


@cache
def _defaults(struct: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Fields by name in the log, with their defaults; what has none is unlike anything."""
    return tuple(
        (
            field.name,
            field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory(),
        )
        for field in msgspec.structs.fields(struct)
    )
