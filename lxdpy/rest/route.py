"""Route, Routes, Call: what a handler declares, and what it is given.

    routes = Routes("/1.0/profiles")

    @routes.on("PUT", "/{name}", body=ProfilePut, entitlement="can_edit")
    async def update_profile(call: Call[ProfilePut]) -> web.Response: ...

Bodies are `msgspec.Struct`s without `forbid_unknown_fields`: newer clients send fields we do not know. LXD's
client sends null for empty lists and maps, so their type is `dict[str, str] | None = None`, and the handler
says `call.body.config or {}`; where null means something else than empty (an instance's profiles) it can
tell.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack, cast

import msgspec
from aiohttp import web

from cluster.errors import Invalid
from cluster.membership.model import member_named
from lxdpy.rest.auth import Identity
from lxdpy.rest.errors import bad_body

if TYPE_CHECKING:
    from cluster.raft.store import Store
    from lxdpy.daemon.context import Daemon

Body = TypeVar("Body")
Decoded = TypeVar("Decoded")

MAX_BODY = 1 << 20  # bytes of a JSON body; what is larger is a file, and handlers stream those


class Call(Generic[Body]):
    """One request on its way through a handler.

    `state` is the snapshot at its start: reads of one answer agree with each other. `body` is the decoded
    body of the route's type, None if the route declares none (then `request.content` is untouched).
    """

    __slots__ = ("_names", "_text", "body", "daemon", "identity", "request", "route", "state")

    def __init__(
        self,
        request: web.BaseRequest,
        daemon: "Daemon",
        route: "Route",
        names: Mapping[str, str],
        identity: Identity,
    ) -> None:
        self.request = request
        self.daemon = daemon
        self.route = route
        self.identity = identity
        self.state = daemon.store.state
        self.body: Body = cast(Body, None)
        self._names = names
        self._text: bytes | None = None  # of the body, once it was read whole

    @property
    def repeatable(self) -> bool:
        """Whether it can be handled once more: no body was streamed, and no answer was begun."""
        whole = self._text is not None or not self.request.body_exists
        return whole and not self.request.writer.output_size

    @property
    def store(self) -> "Store":
        return self.daemon.store

    def path(self, name: str) -> str:
        """A part of the path, percent-decoded: it may hold slashes."""
        return self._names[name]

    def query(self, name: str, default: str = "") -> str:
        return self.request.query.get(name, default) if self.request.query_string else default

    @property
    def project(self) -> str:
        return self.query("project") or "default"

    @property
    def all_projects(self) -> bool:
        return is_true(self.query("all-projects"))

    @property
    def recursion(self) -> int:
        """How much of a list's rows to show: 0 URLs, 1 objects, 2 (instances) with state and snapshots."""
        text = self.query("recursion")
        return int(text) if text.isdecimal() else 0

    @property
    def recursive(self) -> bool:
        return self.recursion > 0

    @property
    def target(self) -> str:
        """`?target=`, "" if not given: a member's name or "@group". Clients send it anywhere."""
        return self.query("target")

    @property
    def filter(self) -> str:
        """For `rest.filter.parse`; clients send it empty as well."""
        return self.query("filter")

    @property
    def etag(self) -> str:
        """The version that the caller means to change, "" for any; for `cluster.state.etag.check_etag`."""
        return self.request.headers.get("If-Match", "").strip().strip('"')

    async def read(self, limit: int = MAX_BODY) -> bytes:
        """The whole body, as often as asked for. Raises Invalid when it is longer than `limit` bytes."""
        if self._text is not None:
            return self._text
        parts: list[bytes] = []
        size = 0
        async for part in self.request.content.iter_any():
            size += len(part)
            if size > limit:
                raise Invalid(f"Request body is longer than {limit} bytes")
            parts.append(part)
        self._text = b"".join(parts)
        return self._text

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of any length as it comes, or as it was read."""
        if self._text is not None:
            yield self._text
            return
        async for part in self.request.content.iter_any():
            yield part

    async def json(self, type: type[Decoded]) -> Decoded:
        """For routes that take JSON or a file, by Content-Type. Raises Invalid, naming the path."""
        return self.decoded(await self.read(), type)

    def decoded(self, text: bytes, type: type[Decoded]) -> Decoded:
        """Of a body that was read whole. Raises Invalid, naming the path."""
        try:
            return msgspec.json.decode(text, type=type)
        except msgspec.ValidationError as error:
            try:
                return msgspec.convert(without_nulls(msgspec.json.decode(text)), type)
            except msgspec.MsgspecError:
                raise bad_body(error) from None
        except msgspec.MsgspecError as error:
            raise bad_body(error) from None

    async def forward(self, member: str) -> web.StreamResponse:
        """Have `member` (name or id) serve this request instead."""
        return await self.daemon.forwarder.send(self.request, member, self.identity, self._text)


AnyCall = Call[Any]
Handler = Callable[[AnyCall], Awaitable[web.StreamResponse]]
Owner = Callable[[AnyCall], str | None]
H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])


class Rules(TypedDict, total=False):
    """What a route asks of requests before its handler runs."""

    body: Any  # a Struct, or any type msgspec decodes; none: the handler reads the body, if it wants one
    takes: Any  # JSON that the handler reads by itself, as files may come as well: for the description
    entitlement: str  # see auth.permits
    owner: Owner  # name or id of the member that must serve it; None: any
    untrusted: bool  # strangers may ask; the handler looks at `identity.trusted`
    internal: bool  # members only


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    pattern: str  # "/1.0/profiles/{name}"; a part in braces matches one segment, {name...} the rest
    handler: Handler
    body: Any = None
    takes: Any = None
    entitlement: str = "admin"
    owner: Owner | None = None
    untrusted: bool = False
    internal: bool = False

    @property
    def names(self) -> list[str]:
        """The names in the pattern, in order."""
        return [part[1:-1].removesuffix("...") for part in self.pattern.split("/") if part.startswith("{")]


class Routes:
    """The routes of one noun, all below `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.all: list[Route] = []

    def on(self, method: str, path: str = "", **rules: Unpack[Rules]) -> Callable[[H], H]:
        """Declare a handler; without an entitlement it is for admins only."""

        def declare(handler: H) -> H:
            self.all.append(Route(method, self.prefix + path, handler, **rules))
            return handler

        return declare


def without_nulls(value: Any) -> Any:
    """Without the fields that are null, as Go's decoder takes them: clients send null for what is not set."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def target_member(call: AnyCall) -> str | None:
    """Owner of what `?target=` may choose a member for: GET /1.0, resources, a pool's state, volumes.

    Clients name the only member of a server that is not clustered as well, as they know it: "none".
    """
    return member_named(call.state, call.target).id if call.target else None


def is_true(text: str) -> bool:
    """LXD's reading of a boolean query."""
    return text.lower() in ("true", "1", "yes", "on")
