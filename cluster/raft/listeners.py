"""Callbacks that are told what happens, in the order they asked to be."""

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")

Unsubscribe = Callable[[], None]


class Listeners(Generic[P]):
    def __init__(self) -> None:
        self._callbacks: list[Callable[P, object]] = []

    def add(self, callback: Callable[P, object]) -> Unsubscribe:
        self._callbacks.append(callback)

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """One that raises keeps the later ones from hearing it: listeners must not."""
        for callback in self._callbacks.copy():
            callback(*args, **kwargs)
