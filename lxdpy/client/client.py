"""One server's API: requests, operations, files and websockets, over the unix socket or pinned HTTPS.

Errors are the server's own: the `error_code` of an answer becomes the kind of error that was raised there.
A connection that cannot be made is `Unavailable`: surely nothing was done. One that breaks after the request
was sent is `Uncertain`, unless it was a GET.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from cluster.errors import Error, Unavailable, Uncertain
from lxdpy.rest.errors import error_of

FOLDER = Path("/var/lib/lxdpy")  # of the daemon, unless LXD_DIR says otherwise
CONNECT = 10.0  # seconds for TCP and TLS
ANSWER = 600.0  # seconds for an answer; waiting for an operation, and streams, have no end
PIECE = 1 << 20  # bytes written at once of what is downloaded
GOOD = 200  # LXD's status code of an operation: Success; 400 Failure, 401 Cancelled

Content = bytes | IO[bytes] | AsyncIterable[bytes]


class Answer(msgspec.Struct, frozen=True):
    """LXD's envelope, and the two headers that belong to it."""

    type: str = "sync"
    operation: str = ""  # URL, when the work goes on
    error: str = ""
    error_code: int = 0
    metadata: Any = None
    etag: str = ""
    location: str = ""


class OperationFailed(Error):
    """The server began it and could not finish; nothing is known of the kind but its words."""


def socket_path() -> Path:
    """LXD_SOCKET, else `unix.socket` in LXD_DIR."""
    chosen = os.environ.get("LXD_SOCKET")
    return Path(chosen) if chosen else Path(os.environ.get("LXD_DIR") or FOLDER) / "unix.socket"


class Client:
    """To be used as `async with`, within one event loop; requests may run side by side.

    Query arguments are named as in the API with `_` for `-`; those that are None are left out.
    """

    def __init__(
        self,
        base: str,
        socket: Path | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = ANSWER,
        proxy: str = "",
    ) -> None:
        self.base = base
        self._proxy = proxy or None
        self._socket = socket
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT)
        self._endless = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
        self._open: aiohttp.ClientSession | None = None

    @classmethod
    def local(cls, path: Path | None = None, timeout: float = ANSWER) -> Self:
        return cls("http://unix.socket", socket=path or socket_path(), timeout=timeout)

    @classmethod
    def remote(cls, address: str, tls: ssl.SSLContext, timeout: float = ANSWER, proxy: str = "") -> Self:
        """`host:port` and a context of `cluster.tls.contexts`; through the `proxy` of that URL."""
        return cls(f"https://{address}", tls=tls, timeout=timeout, proxy=proxy)

    async def __aenter__(self) -> Self:
        connector: aiohttp.BaseConnector
        if self._socket is not None:
            # A connection a request: a kept one could break under the next after a restart of the daemon.
            connector = aiohttp.UnixConnector(str(self._socket), force_close=True)
        else:
            connector = aiohttp.TCPConnector(ssl=self._tls or True)
        self._open = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Any:
        """The metadata of the answer; that of an operation just begun, for an asynchronous one."""
        return (await self.call(method, path, body, headers=headers, **query)).metadata

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Answer:
        """As `ask`, with all of the answer."""
        data = None if body is None else msgspec.json.encode(body)
        known = {"Content-Type": "application/json", **(headers or {})}
        return await self._answer(method, path, data, known, self._timeout, query)

    async def operation(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Any:
        """Wait for the work to end: the operation's metadata, or what was answered at once."""
        return await self.result(await self.call(method, path, body, headers=headers, **query))

    async def upload(
        self,
        method: str,
        path: str,
        content: Content,
        *,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Any:
        """Send a file; waits for the operation if there is one."""
        known = {"Content-Type": "application/octet-stream", **(headers or {})}
        return await self.result(await self._answer(method, path, content, known, self._endless, query))

    async def result(self, answer: Answer) -> Any:
        """Of an answer: its metadata, or that of its operation once it has ended well."""
        if not answer.operation:
            return answer.metadata
        wait = f"{answer.operation.partition('?')[0]}/wait"
        query = {"timeout": -1, **URL(answer.operation).query}
        if secret := ((answer.metadata or {}).get("metadata") or {}).get("secret"):
            query["secret"] = secret  # of what a stranger may wait for
        ended = await self._answer("GET", wait, None, {}, self._endless, query)
        done = ended.metadata
        if done["status_code"] != GOOD:
            reason = done.get("err") or done.get("status") or "The operation did not succeed"
            raise OperationFailed(reason, operation=str(done.get("id", "")))
        return done.get("metadata")

    @asynccontextmanager
    async def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, **query: object
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET of something that is no envelope; errors are raised before anything is yielded."""
        async with self._send("GET", path, None, headers or {}, self._endless, query) as response:
            if response.status >= 400:
                raise _refused(response.status, await response.read())
            yield response

    async def download(
        self, path: str, to: IO[bytes], *, headers: Mapping[str, str] | None = None, **query: object
    ) -> Mapping[str, str]:
        """Into an open file; the answer's headers. What was written of a broken download stays."""
        async with self.stream(path, headers=headers, **query) as response:
            async for piece in response.content.iter_chunked(PIECE):
                await asyncio.to_thread(to.write, piece)
            return response.headers.copy()

    async def websocket(self, path: str, **query: object) -> aiohttp.ClientWebSocketResponse:
        """Messages of any size; the caller closes it."""
        try:
            return await self._session().ws_connect(self._url(path, query), max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            raise error_of(error.status, f"Cannot open {path}: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"Cannot connect to {self._where()}: {error}") from error

    async def _answer(
        self,
        method: str,
        path: str,
        data: Content | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        query: Mapping[str, object],
    ) -> Answer:
        async with self._send(method, path, data, headers, timeout, query) as response:
            raw = await response.read()
            if response.status >= 400:
                raise _refused(response.status, raw)
            etag = response.headers.get("ETag", "").strip('"')
            return msgspec.structs.replace(
                _envelope(raw), etag=etag, location=response.headers.get("Location", "")
            )

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        data: Content | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        query: Mapping[str, object],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._url(path, query)
        try:
            async with self._session().request(
                method,
                url,
                data=data,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                yield response
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"Cannot connect to {self._where()}: {why(error)}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            kind = Unavailable if method == "GET" else Uncertain
            raise kind(f"No answer from {self._where()}: {why(error)}") from error

    def _session(self) -> aiohttp.ClientSession:
        if self._open is None:
            raise RuntimeError("The client is not open: use it in `async with`")
        return self._open

    def _url(self, path: str, query: Mapping[str, object]) -> URL:
        given = {name.replace("_", "-"): _text(value) for name, value in query.items() if value is not None}
        if given:
            path += ("&" if "?" in path else "?") + urlencode(given)
        return URL(self.base + path, encoded=True)

    def _where(self) -> str:
        return str(self._socket) if self._socket is not None else self.base


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def why(error: BaseException) -> str:
    """Why a connection failed: aiohttp repeats the address in its own words; the reason is the system's."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__


def _envelope(raw: bytes) -> Answer:
    try:
        return msgspec.json.decode(raw, type=Answer)
    except msgspec.MsgspecError as error:
        raise Error(f"Not an answer of this API: {raw[:80]!r}") from error


def _refused(status: int, raw: bytes) -> Error:
    """From the envelope; what has none comes from a proxy, or from aiohttp itself."""
    try:
        answer = msgspec.json.decode(raw, type=Answer)
    except msgspec.MsgspecError:
        return error_of(status, raw.decode(errors="replace").strip()[:200] or f"HTTP status {status}")
    return error_of(answer.error_code or status, answer.error or f"HTTP status {status}")
