"""The API as one aiohttp server: what happens to every request before and after its handler.

How fresh the state is that a request is served from, its caller says. By default it is what this member has
applied, which follows the log by milliseconds, and has all that was done through this member. With
`X-Lxdpy-Index: N`, the number that an earlier answer of any member had in this header, it is at least that:
so callers read their own writes anywhere. With `X-Lxdpy-Linearizable: true` it has all that was acknowledged
to anybody before, which costs a round trip to the leader and from it to a majority. A member that is not so
fresh in time answers 503 and has done nothing.

A refusal for how things stand (not found, there already, in use, no GPU free) may be of what was so a moment
ago. So before it is told a member makes sure, by such a round trip, that it lags behind nobody; if it did,
the request is tried once more. Without a leader it says what it knows.
"""

import logging
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from cluster.errors import (
    AlreadyExists,
    Conflict,
    Error,
    Exhausted,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
    Uncertain,
    Unsupported,
)
from cluster.raft.store import Applied
from cluster.state.command import CALLER
from cluster.state.txn import State
from lxdpy.rest import auth, replies
from lxdpy.rest.forward import INDEX, REQUEST_ID, find
from lxdpy.rest.live import Live, withdrawn_by
from lxdpy.rest.route import AnyCall, Call, Routes, is_true
from lxdpy.rest.router import Router, names_of
from lxdpy.rest.trace import REQUEST

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

log = logging.getLogger(__name__)

LINEARIZABLE = "X-Lxdpy-Linearizable"
CATCH_UP = 5.0  # seconds a request waits for this member to apply INDEX; a healthy one lags milliseconds
SURE_WITHIN = 1.0  # seconds a refusal waits for that
REFUSALS = (NotFound, AlreadyExists, Conflict, Exhausted)  # that a newer state may not know
IDLE = 75.0  # seconds; longer than the forwarder keeps connections, so that it is never us who close first

MAX_LINE = 1 << 16  # bytes of a URL or header: filters, and an image's properties, are long

Headers = Callable[[State, str], dict[str, str]]
Phase = Literal["starting", "ready", "stopping"]
# What a stopping daemon still answers: it waits for operations, and clients wait for them too.
WHILE_STOPPING = ("/1.0/events", "/1.0/operations", "/internal/")


class Api:
    """All routes of the daemon. `phase` is turned by who starts and stops it.

    `headers` of every whole answer depend on the origin of the page that asks; what is streamed has none.
    """

    def __init__(
        self, daemon: "Daemon", routes: Iterable[Routes], headers: Headers = lambda state, origin: {}
    ) -> None:
        self.phase: Phase = "starting"
        self._headers = headers
        self.daemon = daemon
        self._live = Live()
        self._router = Router(route for noun in routes for route in noun.all)

    def server(self) -> web.Server:
        """For a listener: calling it makes the protocol of one connection. Within a loop."""
        server = web.Server(
            self.handle,
            access_log=None,
            keepalive_timeout=IDLE,
            read_bufsize=1 << 18,
            auto_decompress=False,  # bodies go on to owners, and into image files, as they came
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )

        def applied(applied: Applied) -> None:
            if withdrawn := withdrawn_by(applied.changes):
                self._live.cut(withdrawn, server)

        self.daemon.store.watch(applied)
        return server

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer anything; a failure is an answer too."""
        REQUEST.set(secrets.token_hex(6))
        try:
            reply = await self._serve(request)
        except Error as reason:
            reply = replies.failure(reason)
        except web.HTTPException as reason:  # aiohttp's own, of a bad websocket handshake
            reply = replies.error(reason.status, reason.text or reason.reason)
        except web.RequestPayloadError as reason:
            reply = replies.error(400, f"Bad request body: {reason}")
        except ConnectionError:
            raise  # the client is gone; aiohttp says so in its debug log
        except Exception:
            log.exception("%s %s", request.method, request.path)
            reply = replies.error(500, f"Internal error; this member's log has it as request {REQUEST.get()}")
        finally:
            self._live.end(request)
        if request.writer.output_size and not reply.prepared:
            # The handler failed while it streamed: only a broken connection says that the body is not whole.
            if request.transport is not None:
                request.transport.abort()
        elif not reply.prepared:
            state = self.daemon.store.state
            reply.headers[INDEX] = str(state.index)
            reply.headers.update(self._headers(state, request.headers.get("Origin", "")))
        return reply

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        found, values = self._router.find(path)
        if not found:
            raise NotFound("not found")
        if request.method == "OPTIONS":
            return web.Response()  # a browser asks what it may send: the answer's headers say it
        identity = auth.identify(request, self.daemon.store.state)
        self._live.begin(request, identity)
        route = found.get(request.method)
        if route is None:
            raise Unsupported("not implemented") if identity.trusted else Forbidden("not authorized")
        if identity.is_member and REQUEST_ID in request.headers:
            REQUEST.set(request.headers[REQUEST_ID])
        self._check_phase(request.method, path)
        await self._catch_up(request)
        if identity.trusted and is_true(request.headers.get(LINEARIZABLE, "")):
            await self.daemon.store.read_index(timeout=CATCH_UP)
        call: AnyCall = Call(request, self.daemon, route, names_of(route, values), identity)
        authorize(call, path)
        CALLER.set(identity.requestor())
        log.debug("%s %s by %s", request.method, path, identity.username)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await go_on(request)
        try:
            return await self._answer(call)
        except REFUSALS:
            if not (call.repeatable and await self._lagged()):
                raise
        call.state = self.daemon.store.state
        return await self._answer(call)

    async def _answer(self, call: AnyCall) -> web.StreamResponse:
        route = call.route
        if route.owner is not None:
            owner = route.owner(call)
            if owner is not None and not self._is_here(call, owner):
                return await call.forward(owner)
        if route.body is not None:
            call.body = await call.json(route.body)
        return await route.handler(call)

    async def _lagged(self) -> bool:
        """Whether others had been told of what this member had not applied; by now it has."""
        known = self.daemon.store.state.index
        try:
            return (await self.daemon.store.read_index(timeout=SURE_WITHIN)).index > known
        except (Unavailable, Uncertain):
            return False

    def _is_here(self, call: AnyCall, owner: str) -> bool:
        here = self.daemon.member_id
        return here in (owner, find(call.state, owner).id)

    async def _catch_up(self, request: web.BaseRequest) -> None:
        wanted = request.headers.get(INDEX)
        if wanted is None:
            return
        if not wanted.isdecimal():
            raise Invalid(f"{INDEX} is not a number: {wanted}")
        if int(wanted) > self.daemon.store.state.index:
            await self.daemon.store.wait_index(int(wanted), timeout=CATCH_UP)

    def _check_phase(self, method: str, path: str) -> None:
        if self.phase == "ready" or path.startswith("/internal/"):
            return
        if self.phase == "starting":
            raise Unavailable("LXD daemon setup in progress")
        if method != "GET" and path != "/1.0" and not path.startswith(WHILE_STOPPING):
            raise Unavailable("LXD is shutting down")


async def go_on(request: web.BaseRequest) -> None:
    """Tell a client that waits for it, as curl does, to send its body: nobody refused the request so far."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # not part of the answer


def authorize(call: AnyCall, path: str) -> None:
    """Raises Forbidden, with LXD's words whatever the reason: a stranger learns nothing."""
    route, identity = call.route, call.identity
    if call.all_projects and call.query("project"):
        raise Invalid("Cannot specify a project when requesting all projects")
    if route.untrusted and not identity.trusted:
        allowed = call.request.headers.get(auth.UNTRUSTED_REFUSED) != "true"
    elif route.internal:
        allowed = identity.is_member or identity.protocol == "unix"
    else:
        project = "" if call.all_projects else call.project
        allowed = auth.permits(identity, route.entitlement, project, path)
    if not allowed:
        raise Forbidden("not authorized")
