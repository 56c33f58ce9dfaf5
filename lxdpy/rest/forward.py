"""To the member that owns what a request is about: bodies are streamed, upgraded connections joined.

Nothing of the request is run here and nothing is tried twice: the owner either got it or did not. What the
owner is told besides the request: who asked (`auth`), what this member had applied, so that it knows at least
as much, and how often the request was forwarded already.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from cluster.errors import Conflict, Error, Unavailable, Uncertain
from cluster.membership.model import MEMBERS, Member, member_named, the_cluster
from cluster.state.txn import State
from cluster.tls.certificates import KeyPair
from cluster.tls.contexts import cluster_client
from lxdpy.rest import auth
from lxdpy.rest.auth import Identity
from lxdpy.rest.errors import error_of
from lxdpy.rest.patience import is_there, while_true
from lxdpy.rest.splice import Streams, connect, splice, upgrade
from lxdpy.rest.trace import REQUEST

if TYPE_CHECKING:
    from cluster.raft.store import Store

log = logging.getLogger(__name__)

HOPS = "X-Lxdpy-Hops"
INDEX = "X-Lxdpy-Index"  # of a reply: what this member had applied; of a request: what it must have applied
REQUEST_ID = "X-Lxdpy-Request"  # so that both members' logs show one id
MOST_HOPS = 2  # one to the owner, one more if it moved meanwhile
CONNECT = 1.5  # seconds for TCP and TLS; a dead owner must be known within 2
CONNECT_OFFLINE = 0.4  # seconds, to a member that seems to be dead: it may just have come back
GOES_ROUND = 1.0  # seconds within which all members with a link have heard of a new cluster certificate
IDLE = 15.0  # seconds a connection is kept for the next request; less than the server keeps it
LOST_AFTER = 1.2  # seconds an owner has to seem dead before it is given up, if it has not begun to answer
CUT_AFTER = 10.0  # seconds if it has: its connection works, for all we know
AGREE_WITHIN = 1.0  # seconds an answer waits at most for this member to see what the owner did
STALLED_AFTER = 15.0  # seconds without a byte until a download is given up
SMALL = 1 << 16  # bytes of a reply that is passed on in one piece
PART = 1 << 18  # bytes at a time of larger ones

# Of one connection only, or made anew by aiohttp.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers",
     "transfer-encoding", "upgrade", "host", "date", "server", "expect")
)  # fmt: skip

OURS = ("x-lxdpy-", "x-lxd-forwarded-")  # lower case: what a client may not say of itself


class Forwarder:
    """This member as a client of the others, over mutual TLS and one pool of connections. Close it at the
    end.
    """

    def __init__(self, store: "Store", own: KeyPair, online: Callable[[str], bool]) -> None:
        """`online` says of a member (id) whether it seems to be alive."""
        self._store = store
        self._own = own
        self._online = online
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether connections are kept
        self._former: list[aiohttp.ClientSession] = []  # those with an earlier key pair
        self._context: tuple[str, ssl.SSLContext] | None = None

    async def close(self) -> None:
        for session in (*self._sessions.values(), *self._former):
            await session.close()

    async def send(
        self, request: web.BaseRequest, owner: str, identity: Identity, body: bytes | None = None
    ) -> web.StreamResponse:
        """Have `owner` (name or id) answer `request`; `body` if it has been read already.

        Raises Unavailable if the owner surely did not get it, Uncertain if it may have acted, Conflict if the
        request was passed on too often.
        """
        member = find(self._store.state, owner)
        hops = self._hops(request)
        if hops >= MOST_HOPS:
            raise Conflict(f"Members disagree about the owner ({member.name}); try again", member=member.name)
        headers = self._headers(request, identity, hops + 1)
        if "Upgrade" in request.headers:
            return await self._upgrade(request, member, headers)
        data = body if body is not None else request.content if request.body_exists else None
        alive = Alive(self._online, member.id)
        try:
            async with while_true(lambda: is_there(request) and alive()):
                far = await self._request(member, request.method, request.raw_path, headers, data)
                alive.limit = CUT_AFTER
                reply = await relay(request, far, member)
        except TimeoutError:
            if not is_there(request):
                raise ConnectionResetError("the client hung up") from None
            raise lost(member, request.method, "no heartbeat") from None
        await self._agree(far)  # it has answered: whether it lives on is nothing to this request
        return reply

    async def _agree(self, far: aiohttp.ClientResponse) -> None:
        """Answer once this member has applied what the owner had: who wrote through it can read it here."""
        index = far.headers.get(INDEX, "")
        if index.isdecimal() and int(index) > self._store.state.index:
            with contextlib.suppress(Error):  # what the owner did is done, however late this member is
                await self._store.wait_index(int(index), AGREE_WITHIN)

    async def ask(
        self,
        owner: str,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout: float = 10.0,
        current: bool = False,
    ) -> Any:
        """A request of this member's own: the answer's metadata. Raises its error, or as `send`.

        With `current` it is served once the other has applied what this member has.
        """
        member = find(self._store.state, owner)
        mine = {REQUEST_ID: REQUEST.get()} | ({INDEX: str(self._store.state.index)} if current else {})
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(timeout), while_true(Alive(self._online, member.id)):
                reply = await self._request(member, method, path, mine, data)
                async with reply:
                    answer = msgspec.json.decode(await reply.read(), type=dict[str, Any])
        except TimeoutError:
            raise lost(member, method, "no answer in time") from None
        except (aiohttp.ClientError, msgspec.MsgspecError) as broken:
            raise lost(member, method, str(broken)) from broken
        if answer.get("type") == "error":
            raise error_of(int(answer["error_code"]), str(answer["error"]))
        return answer.get("metadata")

    async def download(self, owner: str, path: str, patience: float = STALLED_AFTER) -> AsyncIterator[bytes]:
        """The body of a raw answer, as it comes; given up after `patience` seconds without a byte.

        It is served once the other has applied what this member has: else it might not know yet why it is
        asked. Raises the member's error, or as `send`.
        """
        member = find(self._store.state, owner)
        mine = {REQUEST_ID: REQUEST.get(), INDEX: str(self._store.state.index)}
        reply = await self._request(member, "GET", path, mine, None, patience=patience)
        async with reply:
            if reply.status != HTTPStatus.OK:
                answer = msgspec.json.decode(await reply.read(), type=dict[str, Any])
                raise error_of(reply.status, str(answer.get("error")))
            try:
                async for part in reply.content.iter_any():
                    yield part
            except aiohttp.ClientError as broken:
                raise lost(member, "GET", str(broken)) from broken

    def _headers(self, request: web.BaseRequest, identity: Identity, hops: int) -> dict[str, str]:
        """The request's own without those of the connection or of forwarding, then ours."""
        kept = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in HOP_BY_HOP and not name.lower().startswith(OURS)
        }
        return {
            **kept,
            HOPS: str(hops),
            REQUEST_ID: REQUEST.get(),
            INDEX: str(self._store.state.index),
            auth.FORWARDED_PROTOCOL: identity.protocol,
            auth.FORWARDED_USERNAME: identity.username,
            auth.FORWARDED_ADDRESS: identity.address,
        }

    def _hops(self, request: web.BaseRequest) -> int:
        """How often members passed it on; a client's own word for it does not count."""
        given = request.headers.get(HOPS, "")
        if not given.isdecimal() or not auth.of_connection(request, self._store.state).is_member:
            return 0
        return int(given)

    async def _request(
        self,
        member: Member,
        method: str,
        path: str,
        headers: dict[str, str],
        data: Any,
        *,
        patience: float | None = None,
    ) -> aiohttp.ClientResponse:
        connect = CONNECT if self._online(member.id) else CONNECT_OFFLINE
        limits = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=patience)
        url = URL(f"https://{address_of(member)}{path}", encoded=True)
        try:
            async for context in self._contexts():
                with contextlib.suppress(aiohttp.ClientConnectorCertificateError):
                    return await self._connected(member.id).request(
                        method, url, headers=headers, data=data, ssl=context, timeout=limits,
                        allow_redirects=False,
                    )  # fmt: skip
            raise unreachable(member, "it shows another certificate than the cluster's")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as reason:
            raise unreachable(member, reason) from reason
        except aiohttp.ClientError as reason:
            raise lost(member, method, str(reason) or type(reason).__name__) from reason

    async def _upgrade(
        self, request: web.BaseRequest, member: Member, headers: dict[str, str]
    ) -> web.StreamResponse:
        kind = request.headers["Upgrade"]
        asked = {**headers, "Host": member.address, "Connection": "Upgrade", "Upgrade": kind}
        host, _, port = address_of(member).rpartition(":")
        try:
            async with asyncio.timeout(CONNECT if self._online(member.id) else CONNECT_OFFLINE):
                streams = await self._streams((host.strip("[]"), int(port)))
        except (OSError, TimeoutError) as reason:
            raise unreachable(member, reason) from reason
        try:
            async with while_true(Alive(self._online, member.id)):
                far = await upgrade(streams, request.raw_path, asked)
            if far.head.status == 101:
                # Only websockets are sure to be heard of now and then.
                alive = Alive(self._online, member.id, CUT_AFTER)
                return await splice(request, far, None if kind == "websocket" else lambda _: not alive())
            body = await far.refusal()
        except (OSError, EOFError, TimeoutError) as reason:
            raise lost(member, "GET", str(reason) or "no answer") from reason
        finally:
            streams[1].close()
        return web.Response(status=far.head.status, body=body, content_type="application/json")

    async def _streams(self, address: tuple[str, int]) -> Streams:
        """Raises OSError."""
        async for context in self._contexts():
            with contextlib.suppress(ssl.SSLCertVerificationError):
                return await connect(address, context)
        raise OSError("it shows another certificate than the cluster's")

    def _connected(self, member: str) -> aiohttp.ClientSession:
        """What is sent on a connection that was kept may still arrive when the member is back, so one that
        seems to be dead gets a new one: then it surely has not got what could not be sent.
        """
        keep = self._online(member)
        if keep not in self._sessions:
            pool = (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE)
                if keep
                else aiohttp.TCPConnector(limit=0, force_close=True)
            )
            session = aiohttp.ClientSession(
                connector=pool, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=PART
            )
            # aiohttp repeats a PUT or DELETE whose pooled connection broke; an owner may have run the first
            # one.
            session._retry_connection = False
            self._sessions[keep] = session
        return self._sessions[keep]

    async def _contexts(self) -> AsyncIterator[ssl.SSLContext]:
        """For each attempt to connect: while a new certificate of the cluster goes round, one of two members
        knows it before the other, for some milliseconds."""
        deadline = time.monotonic() + GOES_ROUND
        while time.monotonic() < deadline:
            yield self._trusting()
            await asyncio.sleep(GOES_ROUND / 20)

    def rekeyed(self) -> None:
        """This member's own key pair was replaced: new connections show the new one. What runs goes on over
        the old ones, for as long as the others allow it.
        """
        self._context = None
        self._former.extend(self._sessions.values())
        self._sessions.clear()

    def _trusting(self) -> ssl.SSLContext:
        """All members serve with the cluster's certificate; a new one gets new connections."""
        pinned = the_cluster(self._store.state).certificate
        if self._context is None or self._context[0] != pinned:
            self._context = (pinned, cluster_client(self._own, pinned))
        return self._context[1]


class Alive:
    """Whether there is hope for the member still: false once it seemed dead for `limit` seconds."""

    def __init__(self, online: Callable[[str], bool], member: str, limit: float = LOST_AFTER) -> None:
        self._online = online
        self._member = member
        self.limit = limit
        self._seen_at = time.monotonic()

    def __call__(self) -> bool:
        if self._online(self._member):
            self._seen_at = time.monotonic()
        return time.monotonic() - self._seen_at < self.limit


async def relay(request: web.BaseRequest, far: aiohttp.ClientResponse, member: Member) -> web.StreamResponse:
    """The owner's answer to the client: short ones whole, long ones as fast as the client takes them."""
    async with far:
        headers = {name: value for name, value in far.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            if far.content_length is not None and far.content_length <= SMALL and request.method != "HEAD":
                return web.Response(status=far.status, headers=headers, body=await far.read())
            reply = web.StreamResponse(status=far.status, headers=headers)
            await reply.prepare(request)
            async for part in far.content.iter_any():
                await reply.write(part)
        except aiohttp.ClientError as reason:
            raise lost(member, request.method, str(reason) or type(reason).__name__) from reason
        await reply.write_eof()
        return reply


def find(state: State, owner: str) -> Member:
    """By id or name. Raises NotFound."""
    return state.find(MEMBERS, owner) or member_named(state, owner)


def address_of(member: Member) -> str:
    if not member.address:
        raise Unavailable(f"Member {member.name} has no address", member=member.name)
    return member.address


def unreachable(member: Member, reason: Exception | str) -> Unavailable:
    """The request was not sent."""
    if isinstance(reason, aiohttp.ClientConnectorError):
        reason = reason.os_error
    why = getattr(reason, "strerror", "") or str(reason) or "no answer within the time for connecting"
    return Unavailable(f"Member {member.name} is not reachable: {why}", member=member.name)


def lost(member: Member, method: str, reason: str) -> Error:
    """The request was sent and no answer came: only a read surely changed nothing."""
    kind = Unavailable if method in ("GET", "HEAD") else Uncertain
    return kind(f"Member {member.name} is not reachable: {reason}", member=member.name)
