"""All routes together."""

from lxdpy.resources.routes import ROUTES
from lxdpy.rest.router import Router


def test_no_route_is_declared_twice() -> None:
    """The daemon would not start."""
    assert Router(route for noun in ROUTES for route in noun.all).find("/1.0")[0]
