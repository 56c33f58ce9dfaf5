"""From a path to its routes. A part in braces matches one segment that is not empty, and is percent-decoded
afterwards; at the end of a pattern, `{name...}` matches all that is left, slashes included.

Our own rather than aiohttp's because LXD's clients see the difference: an unknown path is 404 and an unknown
method of a known path 501, both in LXD's envelope; and names may hold an encoded slash.
"""

from collections.abc import Iterable
from urllib.parse import unquote

from lxdpy.rest.route import Route


class Place:
    """What is known of one path: its routes by method, and where to go on."""

    __slots__ = ("any", "named", "rest", "routes")

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.named: dict[str, Place] = {}
        self.any: Place | None = None
        self.rest: Place | None = None

    def step(self, part: str) -> "Place":
        if part.endswith("...}"):
            self.rest = self.rest or Place()
            return self.rest
        if not part.startswith("{"):
            return self.named.setdefault(part, Place())
        if self.any is None:
            self.any = Place()
        return self.any


class Router:
    """Literal segments win over names, and names over what takes the rest of the path.

    Two routes for one method and path are a mistake: ValueError.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = Place()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        place = self._root
        for part in route.pattern.split("/")[1:]:
            place = place.step(part)
        if route.method in place.routes:
            raise ValueError(f"declared twice: {route.method} {route.pattern}")
        place.routes[route.method] = route

    def find(self, path: str) -> tuple[dict[str, Route], list[str]]:
        """The routes of a raw path by method (none: unknown path), and the segments that stand for names."""
        place = self._root
        values: list[str] = []
        otherwise: tuple[dict[str, Route], list[str]] = {}, []
        parts = path.split("/")[1:]
        for number, part in enumerate(parts):
            if place.rest is not None:
                otherwise = place.rest.routes, [*values, "/".join(parts[number:])]
            after = place.named.get(part)
            if after is None and part:  # `images/$F` without an $F names no image, and not the only one
                after = place.any
                values.append(part)
            if after is None:
                return otherwise
            place = after
        return (place.routes, values) if place.routes else otherwise


def names_of(route: Route, values: list[str]) -> dict[str, str]:
    """The names in the route's pattern with the decoded segments that stand for them."""
    return dict(zip(route.names, map(unquote, values), strict=True))
