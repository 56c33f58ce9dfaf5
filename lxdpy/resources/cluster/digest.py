"""/internal/1.0/cluster/digest: whether members hold the same state, for operators and tests."""

import asyncio

from aiohttp import web

from cluster.state.machine import digest
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

routes = Routes("/internal/1.0/cluster")


@routes.on("GET", "/digest", internal=True)
async def show_digest(call: Call[None]) -> web.Response:
    """Of this member's own state. Members at one index have one digest; compare no others."""
    return sync({"index": call.state.index, "digest": await asyncio.to_thread(digest, call.state)})
