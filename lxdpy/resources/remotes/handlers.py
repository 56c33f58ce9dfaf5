"""Between members: what the owner of a new instance has to know of who sends it."""

from aiohttp import web

from lxdpy.resources.remotes import arrivals
from lxdpy.resources.remotes.model import Arrival
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

internal = Routes("/internal/1.0/arrivals")


@internal.on("POST", body=Arrival, internal=True)
async def expect_instance(call: Call[Arrival]) -> web.Response:
    """Answers the secrets by which the source calls, none if it is called."""
    return sync(arrivals.expect(call.daemon, call.body))
