"""Layers: the rows of one table, as a map that is copied in no time however large it is."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from types import MappingProxyType
from typing import Any

FEW = 64  # rows that are copied with every change without a thought
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Layers(Mapping[str, Any]):
    """A large map that never changes, and over it what was put since: only that is copied.

    The two are made one when the upper has grown to the root of the lower, when a row is deleted, and when
    somebody looks at all rows. That is never seen: rows are in the order of a plain dict, so on all members
    that apply the same entries in the same order.
    """

    __slots__ = ("_layers",)

    def __init__(self, base: Mapping[str, Any] = NOTHING, over: dict[str, Any] | None = None) -> None:
        # Both in one attribute: threads that read while one of them calls `whole` see what belongs together.
        self._layers = (base, {} if over is None else over)

    def copy(self) -> "Layers":
        """To be changed by `put` and `delete`, as long as no other thread has it."""
        base, over = self._layers
        if len(over) > FEW and len(over) ** 2 > len(base):
            return Layers(self.whole())
        return Layers(base, over.copy())

    def put(self, key: str, row: Any) -> None:
        self._layers[1][key] = row

    def delete(self, key: str) -> None:
        """Raises KeyError."""
        rows = dict(self.whole())
        del rows[key]
        self._layers = (rows, {})

    def whole(self) -> Mapping[str, Any]:
        """All rows, in one map."""
        base, over = self._layers
        if over:
            base = {**base, **over}
            self._layers = (base, {})
        return base

    def __getitem__(self, key: str) -> Any:
        base, over = self._layers
        return over[key] if key in over else base[key]

    def get(self, key: str, default: Any = None) -> Any:
        base, over = self._layers
        return over[key] if key in over else base.get(key, default)

    def __contains__(self, key: object) -> bool:
        base, over = self._layers
        return key in over or key in base

    def __len__(self) -> int:
        base, over = self._layers
        return len(base) + sum(key not in base for key in over)

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole())

    def keys(self) -> KeysView[str]:
        return self.whole().keys()

    def values(self) -> ValuesView[Any]:
        return self.whole().values()

    def items(self) -> ItemsView[str, Any]:
        return self.whole().items()
