import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from cluster.errors import Error, NotFound
from cluster.membership.model import MEMBERS, Member
from lxdpy.rest import forward
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes, target_member
from tests.lxdpy.rest.members import Members, members
from tests.patience import WITHIN, eventually

routes = Routes("/1.0/things")


def last(call: AnyCall) -> str | None:
    """n2 owns everything."""
    return "n2"


def somebody_else(call: AnyCall) -> str | None:
    """Nobody ever owns it."""
    return "n1" if call.daemon.name == "n2" else "n2"


@routes.on("GET", "/who", entitlement="can_view", owner=last)
async def who(call: Call[None]) -> web.StreamResponse:
    return sync({"at": call.daemon.name, "by": call.identity.requestor(), "query": call.query("q")}, etag="e")


@routes.on("GET", "/target", entitlement="can_view", owner=target_member)
async def target(call: Call[None]) -> web.StreamResponse:
    return sync(call.daemon.name)


@routes.on("PUT", "/echo", entitlement="can_edit", owner=last)
async def echo(call: Call[None]) -> web.StreamResponse:
    reply = web.StreamResponse(headers={"X-LXD-type": "file"})
    await reply.prepare(call.request)
    async for part in call.request.content.iter_any():
        await reply.write(part)
    await reply.write_eof()
    return reply


@routes.on("HEAD", "/echo", entitlement="can_view", owner=last)
async def head(call: Call[None]) -> web.StreamResponse:
    return web.Response(headers={"Content-Length": "1234"})


@routes.on("GET", "/index")
async def index(call: Call[None]) -> web.StreamResponse:
    return web.Response(text=call.request.headers.get(forward.INDEX, ""))


COUNT = [0]
ENDED: list[int | None] = []


@routes.on("PUT", "/vanish", owner=last)
async def vanish(call: Call[None]) -> web.StreamResponse:
    COUNT[0] += 1
    assert call.request.transport is not None
    call.request.transport.abort()
    return sync()


@routes.on("GET", "/hang", owner=last)
async def hang(call: Call[None]) -> web.StreamResponse:
    await asyncio.sleep(20)
    return sync()


@routes.on("GET", "/loop", owner=somebody_else)
async def loop(call: Call[None]) -> web.StreamResponse:
    return sync()


@routes.on("GET", "/socket", entitlement="can_view", owner=last)
async def socket(call: Call[None]) -> web.StreamResponse:
    if call.query("refuse"):
        raise Error("refused at the owner")
    near = web.WebSocketResponse()
    await near.prepare(call.request)
    async for message in near:
        if message.data == "end":
            await near.close(code=4321, message=b"because")
        elif message.type is aiohttp.WSMsgType.BINARY:
            await near.send_bytes(message.data)
    ENDED.append(near.close_code)
    return near


def run(folder: Path, check: Callable[[Members], Awaitable[None]]) -> None:
    async def main() -> None:
        async with members(folder, [routes]) as made:
            await check(made)

    asyncio.run(main())


@pytest.mark.parametrize("cut_off", [False, True])
def test_who_wrote_through_the_owner_can_read_it_here(
    cut_off: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "AGREE_WITHIN", 0.3 if cut_off else 60.0)

    async def check(made: Members) -> None:
        here, owner = made.all
        await owner.store.skip()
        asked = asyncio.create_task(made.ask(0, "GET", "/1.0/things/who"))
        await asyncio.wait([asked], timeout=0.1)
        if not cut_off:
            assert not asked.done()
            await here.store.skip()
        assert (await asked)[0] == 200

    run(tmp_path, check)


def test_the_owner_answers_and_knows_who_asked(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        status, answer = await made.ask(0, "GET", "/1.0/things/who?q=a%2Fb")
        assert (status, answer["metadata"]["at"], answer["metadata"]["query"]) == (200, "n2", "a/b")
        by = answer["metadata"]["by"]
        assert (by["protocol"], by["username"]) == ("cluster", made.all[0].keys.fingerprint())

    run(tmp_path, check)


def test_a_target_chooses_the_member(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        for name in ("n1", "n2"):
            assert (await made.ask(0, "GET", f"/1.0/things/target?target={name}"))[1]["metadata"] == name
        status, answer = await made.ask(0, "GET", "/1.0/things/target?target=n9")
        assert (status, answer["error"]) == (404, "Member not found: n9")

    run(tmp_path, check)


def test_large_bodies_pass_both_ways_unchanged(tmp_path: Path) -> None:
    body = bytes(range(256)) * 40_000  # 10 MB

    async def check(made: Members) -> None:
        async def parts() -> Any:
            for start in range(0, len(body), 1 << 20):
                yield body[start : start + (1 << 20)]

        context = made.context(made.all[0].keys)
        url = made.url(0, "/1.0/things/echo")
        async with made.session.put(url, data=parts(), ssl=context) as reply:
            assert reply.headers["X-LXD-type"] == "file"
            assert await reply.read() == body

    run(tmp_path, check)


def test_short_bodies_and_heads_pass_as_well(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        context = made.context(made.all[0].keys)
        url = made.url(0, "/1.0/things/echo")
        async with made.session.put(url, data=b"short", ssl=context) as reply:
            assert await reply.read() == b"short"
        async with made.session.head(url, ssl=context) as reply:
            assert (reply.status, reply.headers["Content-Length"]) == (200, "1234")

    run(tmp_path, check)


def test_a_member_that_refuses_connections_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "CONNECT", 3 * WITHIN)

    async def check(made: Members) -> None:
        await made.all[1].stop()
        async with asyncio.timeout(WITHIN):
            status, answer = await made.ask(0, "GET", "/1.0/things/who")
        assert status == 503
        assert answer["error"].startswith("Member n2 is not reachable: ")

    run(tmp_path, check)


def test_a_member_that_does_not_answer_the_handshake_is_given_up_within_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forward.CONNECT < 2
    monkeypatch.setattr(forward, "CONNECT", 0.2)

    async def check(made: Members) -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = made.all[0].store
        row = store.state.get(MEMBERS, made.all[1].store.member_id)
        store.put(MEMBERS, row.id, msgspec.structs.replace(row, address=address))
        for path in ("/1.0/things/who", "/1.0/things/socket"):
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"} if path.endswith("socket") else {}
            status, _ = await made.ask(0, "GET", path, None, None, **headers)
            assert status == 503
        server.close()

    run(tmp_path, check)


def test_a_silent_member_is_given_up_when_its_link_goes_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forward.LOST_AFTER < 2
    monkeypatch.setattr(forward, "LOST_AFTER", 0.1)

    async def check(made: Members) -> None:
        asked = asyncio.ensure_future(made.ask(0, "GET", "/1.0/things/hang"))
        await asyncio.sleep(0.2)
        made.all[0].store.link(made.all[1].store.member_id, False)
        status, answer = await asked
        assert status == 503
        assert "n2" in answer["error"]

    run(tmp_path, check)


def test_a_request_that_may_have_been_carried_out_is_not_repeated(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        await made.ask(0, "GET", "/1.0/things/who")  # leaves a connection in the pool
        COUNT[0] = 0
        status, answer = await made.ask(0, "PUT", "/1.0/things/vanish")
        assert (status, COUNT[0]) == (504, 1)
        assert "n2" in answer["error"]

    run(tmp_path, check)


def test_a_request_without_an_owner_does_not_go_round_in_circles(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        status, answer = await made.ask(0, "GET", "/1.0/things/loop")
        assert status == 409
        assert "disagree" in answer["error"]

    run(tmp_path, check)


def test_websockets_are_joined_and_close_codes_passed_on(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        context = made.context(made.all[0].keys)
        url = made.url(0, "/1.0/things/socket")
        async with made.session.ws_connect(url, ssl=context, max_msg_size=0) as near:
            for size in (0, 1, 125, 126, 70_000, 3_000_000):
                await near.send_bytes(b"x" * size)
                assert await near.receive_bytes(timeout=WITHIN) == b"x" * size
            await near.send_str("end")
            closed = await near.receive(timeout=WITHIN)
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 4321, "because")

    run(tmp_path, check)


def test_a_client_that_vanishes_ends_the_owners_socket(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        ENDED.clear()
        async with aiohttp.ClientSession() as session:
            url = made.url(0, "/1.0/things/socket")
            await session.ws_connect(url, ssl=made.context(made.all[0].keys))
        await eventually(lambda: ENDED)

    run(tmp_path, check)


def test_a_refused_websocket_gives_the_owners_error(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        status, answer = await made.ask(
            0, "GET", "/1.0/things/socket?refuse=1", Upgrade="websocket", Connection="Upgrade"
        )
        assert (status, answer["error"]) == (500, "refused at the owner")

    run(tmp_path, check)


def test_nobody_but_a_member_can_speak_for_others(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        for path in ("/1.0/things/who", "/1.0/things/target"):
            for at in (0, 1):
                status, answer = await made.ask(
                    at, "GET", path, own=made.client,
                    **{"X-LXD-forwarded-protocol": "unix", "X-LXD-forwarded-username": "root"},
                )  # fmt: skip
                assert (status, answer["error"]) == (403, "not authorized")

    run(tmp_path, check)


def test_a_members_own_question_gets_the_metadata_or_the_error(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        forwarder = made.all[0].daemon.forwarder
        assert (await forwarder.ask("n2", "GET", "/1.0/things/who"))["at"] == "n2"
        with pytest.raises(NotFound, match="not found"):
            await forwarder.ask("n2", "GET", "/1.0/nothing")

    run(tmp_path, check)


def test_a_member_without_an_address_is_not_reachable(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        made.all[0].store.put(MEMBERS, "f" * 12, Member("f" * 12, "n9"))
        status, answer = await made.ask(0, "GET", "/1.0/things/target?target=n9")
        assert (status, answer["error"]) == (503, "Member n9 has no address")

    run(tmp_path, check)


def test_what_is_downloaded_is_as_of_what_this_member_has_applied(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        daemon = made.all[0].daemon
        parts = [part async for part in daemon.forwarder.download("n2", "/1.0/things/index")]
        assert b"".join(parts).decode() == str(daemon.state.index)

    run(tmp_path, check)
