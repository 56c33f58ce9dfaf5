"""The client against a small server that answers as LXD does, over the unix socket and over pinned TLS."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from cluster.errors import (
    Conflict,
    Error,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    Unavailable,
    Uncertain,
    Unsupported,
)
from cluster.tls.certificates import KeyPair, ensure
from cluster.tls.contexts import pinned_client
from cluster.tls.openssl import Adapter
from lxdpy.client.client import Client, OperationFailed, socket_path
from lxdpy.rest.listener import Listener, peer_of

BIG = bytes(range(256)) * 20_000
ENDED = web.AppKey("ended", dict[str, object])  # how the next operation ends
OPERATION = "/1.0/operations/0d2cf4ac-5a43-41d1-a3b5-aaaaaaaaaaaa"


def envelope(
    metadata: object = None, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"type": "sync", "status": "Success", "status_code": 200, "metadata": metadata}
    return web.json_response(body, status=status, headers=headers)


def refusal(code: int, message: str) -> web.Response:
    body = {"type": "error", "error": message, "error_code": code, "metadata": None}
    return web.json_response(body, status=code)


async def mirror(request: web.Request) -> web.Response:
    """What was asked, back."""
    body = await request.read()
    shown = {
        "method": request.method,
        "path": request.raw_path,
        "body": json.loads(body) if body else None,
        "peer": peer_of(request).fingerprint,
        "if_match": request.headers.get("If-Match"),
    }
    return envelope(shown, headers={"ETag": '"abc"', "Location": "/1.0/there"})


async def fail(request: web.Request) -> web.Response:
    code = int(request.match_info["code"])
    return refusal(code, f"no: {code}")


async def begin(request: web.Request) -> web.Response:
    body = {
        "type": "async",
        "status_code": 100,
        "operation": f"{OPERATION}?project=p1",
        "metadata": {"id": "x"},
    }
    ended = request.app[ENDED]
    ended.update(await request.json() if request.can_read_body else {"status_code": 200})
    return web.json_response(body, status=202)


async def wait(request: web.Request) -> web.Response:
    assert dict(request.query) == {"timeout": "-1", "project": "p1"}
    ended: dict[str, object] = request.app[ENDED]
    return envelope({"id": "x", "metadata": {"return": 0}, **ended})


async def take(request: web.Request) -> web.Response:
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
    return envelope(
        {"size": size, "name": request.headers.get("X-LXD-filename"), "public": request.query["public"]}
    )


async def give(request: web.Request) -> web.Response:
    return web.Response(body=BIG, headers={"Content-Disposition": "inline;filename=a.tar"})


async def talk(request: web.Request) -> web.StreamResponse:
    if request.query.get("secret") != "right":
        return refusal(403, "not authorized")
    words = web.WebSocketResponse(max_msg_size=0)
    await words.prepare(request)
    async for message in words:
        await words.send_bytes(message.data)
    return words


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def proxy(request: web.Request) -> web.Response:
    return web.Response(status=502, text="<html>bad gateway</html>")


async def nonsense(request: web.Request) -> web.Response:
    return web.Response(text="it works!")


def application() -> web.Application:
    app = web.Application(client_max_size=1 << 30)
    app[ENDED] = {}
    app.add_routes(
        [
            web.route("*", "/1.0/mirror", mirror),
            web.get("/1.0/fail/{code}", fail),
            web.post("/1.0/begin", begin),
            web.get(f"{OPERATION}/wait", wait),
            web.post("/1.0/take", take),
            web.get("/1.0/give", give),
            web.get("/1.0/talk", talk),
            web.route("*", "/1.0/hang-up", hang_up),
            web.get("/1.0/proxy", proxy),
            web.get("/1.0/nonsense", nonsense),
        ]
    )
    return app


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair]:
    folder = tmp_path_factory.mktemp("keys")
    return ensure(folder, "server"), ensure(folder, "client")


@pytest.fixture(params=["unix", "tls"])
def served(
    request: pytest.FixtureRequest, keys: tuple[KeyPair, KeyPair], tmp_path: Path
) -> Callable[[Callable[[Client], Awaitable[None]]], None]:
    """Runs a scenario with a client of each kind."""

    async def run(scenario: Callable[[Client], Awaitable[None]]) -> None:
        runner = web.AppRunner(application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        assert runner.server is not None
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            listener = Listener(tasks)
            try:
                if request.param == "unix":
                    path = tmp_path / "unix.socket"
                    await listener.start_unix(path, None, runner.server)
                    client = Client.local(path)
                else:
                    await listener.listen("127.0.0.1:0", runner.server, Adapter(keys[0]), socket.socket.close)
                    tls = pinned_client(keys[1], keys[0].fingerprint())
                    client = Client.remote(listener.addresses[0], tls)
                async with client:
                    await scenario(client)
            finally:
                await listener.close()
                await runner.cleanup()

    return lambda scenario: asyncio.run(run(scenario))


Served = Callable[[Callable[[Client], Awaitable[None]]], None]


def test_a_request_goes_as_it_was_asked(served: Served, keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario(client: Client) -> None:
        body = {"name": "c1", "config": {"ü": "€"}}
        answer = await client.call(
            "PUT",
            "/1.0/mirror",
            body,
            headers={"If-Match": "x"},
            project="a b/c",
            all_projects=True,
            target=None,
        )
        seen = answer.metadata
        assert (seen["method"], seen["body"], seen["if_match"]) == ("PUT", body, "x")
        assert seen["path"] == "/1.0/mirror?project=a+b%2Fc&all-projects=true"
        assert seen["peer"] == ("" if "unix" in client.base else keys[1].fingerprint())
        assert (answer.etag, answer.location) == ("abc", "/1.0/there")

    served(scenario)


def test_an_encoded_path_is_left_as_it_is(served: Served) -> None:
    async def scenario(client: Client) -> None:
        seen = await client.ask("GET", "/1.0/mirror?filter=a%2Fb%20c", recursion=1)
        assert seen["path"] == "/1.0/mirror?filter=a%2Fb%20c&recursion=1"
        assert seen["body"] is None

    served(scenario)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Invalid), (403, Forbidden), (404, NotFound), (409, Conflict), (412, Stale), (500, Error),
        (501, Unsupported), (503, Unavailable),
    ],
)  # fmt: skip
def test_the_server_s_errors_are_raised_as_their_kind(served: Served, code: int, kind: type[Error]) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(kind, match=f"no: {code}") as caught:
            await client.ask("GET", f"/1.0/fail/{code}")
        assert type(caught.value) is kind

    served(scenario)


def test_an_operation_is_waited_for(served: Served) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call("POST", "/1.0/begin")).operation.startswith(OPERATION)
        assert await client.operation("POST", "/1.0/begin") == {"return": 0}
        assert (await client.operation("GET", "/1.0/mirror"))["method"] == "GET"  # answered at once

    served(scenario)


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        ({"status_code": 400, "status": "Failure", "err": "the disk is full"}, "the disk is full"),
        ({"status_code": 401, "status": "Cancelled", "err": ""}, "Cancelled"),
    ],
)
def test_an_operation_that_fails_raises_its_reason(
    served: Served, ended: dict[str, object], message: str
) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(OperationFailed, match=message) as caught:
            await client.operation("POST", "/1.0/begin", ended)
        assert caught.value.facts == {"operation": "x"}

    served(scenario)


def test_files_go_up_from_files_bytes_and_streams(served: Served) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(BIG), 100_000):
            yield BIG[at : at + 100_000]

    async def scenario(client: Client) -> None:
        for content in (io.BytesIO(BIG), pieces()):
            headers = {"X-LXD-filename": "a.tar"}
            seen = await client.upload("POST", "/1.0/take", content, headers=headers, public=False)
            assert seen == {"size": len(BIG), "name": "a.tar", "public": "false"}
        assert (await client.upload("POST", "/1.0/take", b"abc", public=True))["size"] == 3

    served(scenario)


def test_a_file_comes_down_whole(served: Served) -> None:
    async def scenario(client: Client) -> None:
        into = io.BytesIO()
        headers = await client.download("/1.0/give", into)
        assert into.getvalue() == BIG
        assert headers["Content-Disposition"] == "inline;filename=a.tar"
        with pytest.raises(NotFound, match="no: 404"):
            await client.download("/1.0/fail/404", into)

    served(scenario)


def test_websockets_are_opened_by_their_secret(served: Served) -> None:
    async def scenario(client: Client) -> None:
        words = await client.websocket("/1.0/talk", secret="right")
        await words.send_bytes(BIG)
        assert await words.receive_bytes() == BIG
        await words.close()
        with pytest.raises(Forbidden):
            await client.websocket("/1.0/talk", secret="wrong")

    served(scenario)


def test_a_broken_answer_is_uncertain_unless_nothing_was_changed(served: Served) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(Uncertain, match="No answer"):
            await client.ask("POST", "/1.0/hang-up", {})
        with pytest.raises(Unavailable, match="No answer"):
            await client.ask("GET", "/1.0/hang-up")

    served(scenario)


def test_what_is_no_answer_of_the_api_is_said_so(served: Served) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(Error, match="bad gateway"):
            await client.ask("GET", "/1.0/proxy")
        with pytest.raises(Error, match="Not an answer of this API"):
            await client.ask("GET", "/1.0/nonsense")

    served(scenario)


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    async def scenario() -> None:
        nobody = pinned_client(None, "00" * 32)
        for client in (Client.local(tmp_path / "absent"), Client.remote(f"127.0.0.1:{port}", nobody)):
            async with client:
                with pytest.raises(Unavailable, match="Cannot connect to"):
                    await client.ask("POST", "/1.0", {})
                with pytest.raises(Unavailable, match="Cannot connect to"):
                    await client.websocket("/1.0/events")

    asyncio.run(scenario())


def test_another_server_than_the_pinned_one_is_not_asked(keys: tuple[KeyPair, KeyPair]) -> None:
    async def scenario() -> None:
        runner = web.AppRunner(application(), access_log=None)
        await runner.setup()
        assert runner.server is not None
        async with asyncio.TaskGroup() as tasks:
            listener = Listener(tasks)
            await listener.listen("127.0.0.1:0", runner.server, Adapter(keys[1]), socket.socket.close)
            client = Client.remote(listener.addresses[0], pinned_client(None, keys[0].fingerprint()))
            async with client:
                with pytest.raises(Unavailable, match=f"certificate is {keys[1].fingerprint()}"):
                    await client.ask("GET", "/1.0/mirror")
            await listener.close()
        await runner.cleanup()

    asyncio.run(scenario())


def test_an_answer_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "unix.socket"
        gone = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            await writer.wait_closed()
            gone.set()

        async with await asyncio.start_unix_server(silent, path), asyncio.timeout(10):
            async with Client.local(path, timeout=0.1) as client:
                with pytest.raises(Unavailable, match="No answer"):
                    await client.ask("GET", "/1.0")
            await gone.wait()

    asyncio.run(scenario())


def test_the_environment_says_where_the_socket_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LXD_SOCKET", raising=False)
    monkeypatch.delenv("LXD_DIR", raising=False)
    assert socket_path() == Path("/var/lib/lxdpy/unix.socket")
    monkeypatch.setenv("LXD_DIR", "/srv/n1")
    assert socket_path() == Path("/srv/n1/unix.socket")
    monkeypatch.setenv("LXD_SOCKET", "/run/n1.socket")
    assert socket_path() == Path("/run/n1.socket")
