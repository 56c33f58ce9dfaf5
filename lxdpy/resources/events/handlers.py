"""/1.0/events. Source: LXD doc/rest-api.yaml, tag "server"."""

from aiohttp import web

from cluster.errors import Forbidden, Invalid
from lxdpy.resources.events.model import TYPES
from lxdpy.rest.auth import Identity
from lxdpy.rest.route import Call, Routes

routes = Routes("/1.0/events")

PING_EVERY = 10.0  # seconds, as LXD; a client that does not answer for half of that is gone


@routes.on("GET", entitlement="can_view")
async def stream_events(call: Call[None]) -> web.StreamResponse:
    """Frames are written to the connection by the hub, one encoding for all listeners; here it is only
    held.
    """
    types = types_of(call.query("type"), call.identity)
    projects: frozenset[str] | None = frozenset((call.project,))
    if call.all_projects:
        projects = None if call.identity.projects is None else frozenset(call.identity.projects)
    socket = web.WebSocketResponse(heartbeat=PING_EVERY, compress=False)
    if not socket.can_prepare(call.request):
        raise Invalid("This URL is for websockets")
    await socket.prepare(call.request)
    assert call.request.transport is not None
    with call.daemon.hub.listening(call.request.transport, types, projects):
        async for _ in socket:
            pass  # nothing that a client could say
    return socket


def types_of(asked: str, identity: Identity) -> list[str]:
    """`?type=a,b`; without it all that the caller may see. Logging is for admins: it names everyone's."""
    if not asked:
        return [kind for kind in TYPES if kind != "logging" or identity.admin]
    types = [kind for kind in asked.split(",") if kind]
    if unknown := [kind for kind in types if kind not in TYPES]:
        raise Invalid(f'"{unknown[0]}" isn\'t a supported event type')
    if "logging" in types and not identity.admin:
        raise Forbidden("not authorized")
    return types
