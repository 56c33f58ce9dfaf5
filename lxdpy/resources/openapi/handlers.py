"""/1.0/openapi.json: what this server answers, for people and for tools that make clients or tests of it."""

from collections.abc import Sequence
from functools import cache

import msgspec
from aiohttp import web

from lxdpy import VERSION
from lxdpy.resources.openapi.description import describe
from lxdpy.rest.replies import JSON
from lxdpy.rest.route import Call, Routes


def routes_of(nouns: Sequence[Routes]) -> Routes:
    """The route that describes these. Made when it is first asked for: it takes some 20 ms."""
    routes = Routes("/1.0/openapi.json")

    @cache
    def text() -> bytes:
        return msgspec.json.encode(describe((*nouns, routes), VERSION))

    @routes.on("GET", entitlement="can_view", untrusted=True)
    async def show_description(call: Call[None]) -> web.Response:
        """This description, without an envelope."""
        return web.Response(body=text(), content_type=JSON)

    return routes
