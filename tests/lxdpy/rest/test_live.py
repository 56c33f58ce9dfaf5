"""Who is not trusted any more is cut off in the middle of what he does, wherever it runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cluster.membership.model import MEMBERS
from lxdpy.resources.certificates.commands import DistrustCertificate, TrustCertificate, UpdateCertificate
from lxdpy.resources.certificates.model import Certificate
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes
from tests.lxdpy.rest.members import Members, members
from tests.patience import WITHIN

routes = Routes("/1.0/instances")


def last(call: AnyCall) -> str | None:
    return "n2"


@routes.on("GET", "/here", entitlement="can_view")
@routes.on("GET", "/there", entitlement="can_view", owner=last)
async def socket(call: Call[None]) -> web.StreamResponse:
    reply = web.WebSocketResponse()
    await reply.prepare(call.request)
    await reply.send_str("hello")
    async for message in reply:
        await reply.send_str(message.data)
    return reply


@routes.on("GET", entitlement="can_view")
async def who(call: Call[None]) -> web.StreamResponse:
    return sync(call.identity.username)


def run(test: Callable[[Members], Awaitable[None]], folder: Path) -> None:
    async def within() -> None:
        async with members(folder, [routes]) as made:
            trust(made, restricted=False)
            await test(made)

    asyncio.run(within())


def trust(made: Members, *, restricted: bool) -> Certificate:
    row = Certificate(made.client.fingerprint(), made.client.pem(), "client", restricted=restricted)
    for fake in made.all:
        fake.store.run(TrustCertificate(row))
    return row


async def opened(made: Members, path: str) -> aiohttp.ClientWebSocketResponse:
    context = made.context(made.client)
    socket = await made.session.ws_connect(made.url(0, path), ssl=context)
    assert await socket.receive_str() == "hello"
    return socket


async def ends(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether it does, or else answers once more: by then, what would have ended it is done."""
    await socket.send_str("still there")
    async with asyncio.timeout(WITHIN):
        message = await socket.receive()
    return message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR)


@pytest.mark.parametrize("path", ["/1.0/instances/here", "/1.0/instances/there"])
@pytest.mark.parametrize("tells", [0, 1])
def test_a_websocket_ends_with_its_certificate(tmp_path: Path, path: str, tells: int) -> None:
    """Also where only the owner has heard of it, and the member that the client is connected to has not."""

    async def test(made: Members) -> None:
        socket = await opened(made, path)
        made.all[tells].store.run(DistrustCertificate(made.client.fingerprint()))
        heard_at_owner = path.endswith("there") or tells == 0
        assert await ends(socket) == heard_at_owner
        await socket.close()

    run(test, tmp_path)


def test_fewer_rights_end_what_was_begun_with_more(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        socket = await opened(made, "/1.0/instances/here")
        old = Certificate(made.client.fingerprint(), made.client.pem(), "client")
        confined = Certificate(old.fingerprint, old.certificate, "client", restricted=True, projects=("p",))
        made.all[0].store.run(UpdateCertificate(old.fingerprint, confined))
        assert await ends(socket)

    run(test, tmp_path)


def test_another_name_ends_nothing(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        socket = await opened(made, "/1.0/instances/here")
        row = Certificate(made.client.fingerprint(), made.client.pem(), "other name")
        made.all[0].store.run(UpdateCertificate(row.fingerprint, row))
        assert not await ends(socket)
        await socket.close()

    run(test, tmp_path)


def test_an_idle_connection_ends_too_and_others_stay(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        connection = await asyncio.open_connection(
            "127.0.0.1", made.all[0].port, ssl=made.context(made.client), server_hostname=""
        )
        other = await opened_by_member(made)
        made.all[0].store.run(DistrustCertificate(made.client.fingerprint()))
        async with asyncio.timeout(WITHIN):
            assert await connection[0].read() == b""
        connection[1].close()
        assert not await ends(other)
        await other.close()

    run(test, tmp_path)


async def opened_by_member(made: Members) -> aiohttp.ClientWebSocketResponse:
    context = made.context(made.all[1].keys)
    socket = await made.session.ws_connect(made.url(0, "/1.0/instances/here"), ssl=context)
    assert await socket.receive_str() == "hello"
    return socket


def test_a_removed_member_is_cut_off(tmp_path: Path) -> None:
    async def test(made: Members) -> None:
        socket = await opened_by_member(made)
        made.all[0].store.put(MEMBERS, made.all[1].store.member_id, None)
        assert await ends(socket)

    run(test, tmp_path)
