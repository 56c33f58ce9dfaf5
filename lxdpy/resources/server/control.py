"""/internal: whether the daemon is ready, and telling it what to do now. For this host's command line."""

import gc

from aiohttp import web

from lxdpy.resources.images.remote import refresh_all
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

routes = Routes("/internal")


@routes.on("GET", "/ready", internal=True)
async def is_ready(call: Call[None]) -> web.Response:
    """Answers once the daemon has brought its host in line with the state."""
    await call.daemon.ready.wait()
    return sync()


@routes.on("GET", "/gc", internal=True)
async def collect_garbage(call: Call[None]) -> web.Response:
    """All of it, at once: nobody is answered meanwhile."""
    gc.collect()
    return sync()


@routes.on("GET", "/testing/image-refresh", internal=True)
async def refresh_images(call: Call[None]) -> web.Response:
    """What is done by itself every `images.auto_update_interval` hours."""
    await refresh_all(call.daemon)
    return sync()


@routes.on("PUT", "/shutdown", internal=True)
async def shut_down(call: Call[None]) -> web.Response:
    """As for the host: instances are stopped first, and started again by the next daemon."""
    call.daemon.host_stops = True
    call.daemon.stopping.set()
    return sync()
