"""A real aiohttp server around a few handlers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from cluster.errors import Conflict
from cluster.state.etag import check_etag
from lxdpy.resources.server.model import SETTINGS, Setting
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes
from tests.lxdpy.fakes import Local, LocalStore, local_daemon, serving

routes = Routes("/1.0/things")


class Thing(msgspec.Struct):
    name: str
    config: dict[str, str] | None = None


@routes.on("GET", entitlement="can_view")
async def list_things(call: Call[None]) -> web.StreamResponse:
    return sync([call.project, str(call.recursion), call.target, call.filter])


@routes.on("POST", body=Thing, entitlement="can_create_things")
async def create_thing(call: Call[Thing]) -> web.StreamResponse:
    return sync(location=f"/1.0/things/{call.body.name}")


@routes.on("GET", "/{name}", entitlement="can_view")
async def show_thing(call: Call[None]) -> web.StreamResponse:
    return sync({"name": call.path("name"), "requestor": call.identity.requestor()}, etag="abc")


@routes.on("PUT", "/{name}", body=Thing, entitlement="can_edit")
async def update_thing(call: Call[Thing]) -> web.StreamResponse:
    check_etag(call.etag, "abc")
    return sync({"config": call.body.config or {}})


@routes.on("GET", "/refuse")
async def refuse(call: Call[None]) -> web.StreamResponse:
    raise Conflict("It is taken", by="somebody")


@routes.on("GET", "/break")
async def fall_over(call: Call[None]) -> web.StreamResponse:
    raise ZeroDivisionError("a secret of ours")


@routes.on("GET", "/tear")
async def tear(call: Call[None]) -> web.StreamResponse:
    reply = web.StreamResponse(headers={"Content-Length": "1000"})
    await reply.prepare(call.request)
    await reply.write(b"part of it")
    raise Conflict("too late for an error")


def served(root: Path, check: Callable[[Local, LocalStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = LocalStore()
        async with serving(local_daemon(root, store), routes) as client:
            await check(client, store)

    asyncio.run(main())


def test_a_sync_answer_is_lxds_to_the_byte(tmp_path: Path) -> None:
    async def check(client: Local, store: LocalStore) -> None:
        reply = await client.reply("GET", "/1.0/things?project=p&recursion=2&target=m&filter=")
        assert await reply.read() == (
            b'{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"",'
            b'"metadata":["p","2","m",""]}\n'
        )
        assert (reply.status, reply.content_type) == (200, "application/json")
        assert reply.headers["X-Lxdpy-Index"] == str(store.state.index)

    served(tmp_path, check)


def test_what_was_created_is_201_with_its_url_and_null(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        reply = await client.reply("POST", "/1.0/things", b'{"name":"a","config":null,"from_the_future":1}')
        assert (reply.status, reply.headers["Location"]) == (201, "/1.0/things/a")
        assert (await reply.json())["metadata"] is None

    served(tmp_path, check)


def test_an_error_is_lxds_to_the_byte(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        reply = await client.reply("GET", "/1.0/things/refuse")
        assert (reply.status, reply.headers["X-Content-Type-Options"]) == (409, "nosniff")
        assert await reply.read() == (
            b'{"type":"error","status":"","status_code":0,"operation":"","error_code":409,'
            b'"error":"It is taken","metadata":null}\n'
        )

    served(tmp_path, check)


def test_an_unknown_path_is_not_found_and_an_unknown_method_not_implemented(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        for method, path, code, text in (
            ("GET", "/1.0/nothings", 404, "not found"),
            ("GET", "/1.0/things/", 404, "not found"),
            ("GET", "/1.0/things/a/b", 404, "not found"),
            ("DELETE", "/1.0/things", 501, "not implemented"),
        ):
            answer = await client.ask(method, path)
            assert (answer["error_code"] or 200, answer["error"]) == (code, text), path

    served(tmp_path, check)


def test_a_browser_may_ask_what_there_is_and_is_allowed_what_is_configured(tmp_path: Path) -> None:
    async def check(client: Local, store: LocalStore) -> None:
        async def allowed(method: str, path: str, **headers: str) -> str | None:
            reply = await client.reply(method, path, None, **headers)
            return reply.headers.get("Access-Control-Allow-Origin")

        reply = await client.reply("OPTIONS", "/1.0/things", Origin="https://elsewhere")
        assert (reply.status, await reply.read()) == (200, b"")
        assert not [name for name in reply.headers if name.startswith("Access-Control")]
        store.put(SETTINGS, "core.https_allowed_origin", Setting("https://elsewhere"))
        for method, path in (("OPTIONS", "/1.0/things"), ("GET", "/1.0/things"), ("GET", "/1.0/nothing")):
            assert await allowed(method, path, Origin="https://elsewhere") == "https://elsewhere"
            assert await allowed(method, path) is None

    served(tmp_path, check)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"name": 1}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "a", "config": {"x": 1}}', "at `$.config[...]`"),
        (b"{}", "missing required field `name`"),
        (b"", "truncated"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"name": "' + b"x" * (1 << 20) + b'"}', "longer than 1048576 bytes"),
    ],
)
def test_a_bad_body_is_refused_with_the_path(tmp_path: Path, body: bytes, says: str) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        reply = await client.reply("POST", "/1.0/things", body)
        assert reply.status == 400
        assert says in (await reply.json())["error"]

    served(tmp_path, check)


def test_names_are_decoded_after_routing(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "unix.socket"))
        writer.write(b"GET /1.0/things/a%2Fb%20c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b'"name":"a/b c"' in await reader.read()
        writer.close()

    served(tmp_path, check)


def test_an_etag_is_quoted_and_an_older_one_refused(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        reply = await client.reply("GET", "/1.0/things/a")
        assert reply.headers["ETag"] == '"abc"'
        put = await client.reply("PUT", "/1.0/things/a", b'{"name":"a"}', **{"If-Match": '"abc"'})
        assert put.status == 200
        put = await client.reply("PUT", "/1.0/things/a", b'{"name":"a"}', **{"If-Match": '"older"'})
        assert put.status == 412
        assert (await put.json())["error"] == "ETag doesn't match: abc vs older"

    served(tmp_path, check)


def test_a_bug_in_a_handler_is_told_in_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        answer = await client.ask("GET", "/1.0/things/break")
        assert answer["error_code"] == 500
        assert "secret" not in answer["error"]
        assert "request" in answer["error"]

    with caplog.at_level(logging.ERROR):
        served(tmp_path, check)
    assert "a secret of ours" in caplog.text


def test_a_handler_that_fails_in_midstream_breaks_the_connection(tmp_path: Path) -> None:
    async def check(_client: Local, _store: LocalStore) -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "unix.socket"))
        writer.write(b"GET /1.0/things/tear HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            got = await reader.read()
        except ConnectionError:
            got = b""
        assert b"error_code" not in got
        writer.close()

    served(tmp_path, check)


def test_the_caller_of_a_unix_socket_is_an_admin_by_name(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        answer = await client.ask("GET", "/1.0/things/a")
        assert answer["metadata"]["requestor"]["protocol"] == "unix"
        assert answer["metadata"]["requestor"]["username"] != ""

    served(tmp_path, check)


def test_a_project_and_all_projects_exclude_each_other(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        answer = await client.ask("GET", "/1.0/things?project=p&all-projects=true")
        assert answer["error_code"] == 400

    served(tmp_path, check)


def test_a_request_waits_until_this_member_has_applied_its_index(tmp_path: Path) -> None:
    async def check(client: Local, store: LocalStore) -> None:
        wanted = str(store.state.index + 1)
        asked = asyncio.ensure_future(client.reply("GET", "/1.0/things", None, **{"X-Lxdpy-Index": wanted}))
        done, _ = await asyncio.wait({asked}, timeout=0.1)
        assert not done
        await store.skip()
        reply = await asked
        assert reply.headers["X-Lxdpy-Index"] == wanted

    served(tmp_path, check)


def test_phases_refuse_what_cannot_be_served(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        client.api.phase = "starting"
        answer = await client.ask("GET", "/1.0/things")
        assert (answer["error_code"], answer["error"]) == (503, "LXD daemon setup in progress")
        client.api.phase = "stopping"
        assert (await client.ask("GET", "/1.0/things"))["error_code"] == 0
        answer = await client.ask("POST", "/1.0/things", {"name": "a"})
        assert (answer["error_code"], answer["error"]) == (503, "LXD is shutting down")

    served(tmp_path, check)


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(tmp_path: Path) -> None:
    async def check(_client: Local, _store: LocalStore) -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "unix.socket"))
        head = b"POST /1.0/things HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"name":"a"}')
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 Created\r\n")
        writer.close()

    served(tmp_path, check)


def test_a_body_that_breaks_off_is_no_error_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(_client: Local, _store: LocalStore) -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "unix.socket"))
        writer.write(b"POST /1.0/things HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await asyncio.sleep(0.05)
        writer.close()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "unix.socket"))
        writer.write(b"POST /1.0/things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()

    with caplog.at_level(logging.ERROR, "lxdpy"):
        served(tmp_path, check)
    assert [record for record in caplog.records if record.name.startswith("lxdpy")] == []
