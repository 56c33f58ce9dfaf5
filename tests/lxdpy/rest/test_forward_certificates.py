"""While the cluster's certificate changes, requests between members wait a moment; to others none is sent."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cluster.membership.model import CLUSTER, THE_CLUSTER, Cluster
from cluster.tls.certificates import KeyPair
from lxdpy.rest.replies import sync
from lxdpy.rest.route import AnyCall, Call, Routes
from tests.lxdpy.rest.members import Fake, Members, key_pair, members

routes = Routes("/1.0/things")
KNOWN_AFTER = 0.3  # seconds until the second member has heard of it


def last(call: AnyCall) -> str | None:
    return "n2"


@routes.on("GET", "/who", entitlement="can_view", owner=last)
async def who(call: Call[None]) -> web.StreamResponse:
    return sync(call.daemon.name)


@routes.on("GET", "/socket", entitlement="can_view", owner=last)
async def socket(call: Call[None]) -> web.StreamResponse:
    reply = web.WebSocketResponse()
    await reply.prepare(call.request)
    await reply.send_str("hello")
    await reply.close()
    return reply


def run(test: Callable[[Members, KeyPair], Awaitable[None]], folder: Path) -> None:
    async def within() -> None:
        async with members(folder, [routes]) as made:
            await test(made, key_pair(folder, "new"))

    asyncio.run(within())


def told(fake: Fake, certificate: KeyPair) -> None:
    """The member has applied the change."""
    row = Cluster("c1", enabled=True, certificate=certificate.pem())
    fake.store.put(CLUSTER, THE_CLUSTER, row)


def test_who_has_heard_of_it_first_waits_for_the_other(tmp_path: Path) -> None:
    async def test(made: Members, new: KeyPair) -> None:
        told(made.all[0], new)
        asked = asyncio.create_task(made.ask(0, "GET", "/1.0/things/who"))
        await asyncio.sleep(KNOWN_AFTER)
        assert not asked.done()
        told(made.all[1], new)
        made.all[1].tls.replace(new)
        assert (await asked)[1]["metadata"] == "n2"

    run(test, tmp_path)


def test_who_has_not_heard_of_it_yet_waits_until_it_has(tmp_path: Path) -> None:
    async def test(made: Members, new: KeyPair) -> None:
        made.all[1].tls.replace(new)
        asked = asyncio.create_task(made.ask(0, "GET", "/1.0/things/who"))
        await asyncio.sleep(KNOWN_AFTER)
        assert not asked.done()
        told(made.all[0], new)
        assert (await asked)[1]["metadata"] == "n2"

    run(test, tmp_path)


def test_a_websocket_waits_too(tmp_path: Path) -> None:
    async def test(made: Members, new: KeyPair) -> None:
        told(made.all[0], new)
        own = made.context(made.all[0].keys)
        opened = asyncio.create_task(made.session.ws_connect(made.url(0, "/1.0/things/socket"), ssl=own))
        await asyncio.sleep(KNOWN_AFTER)
        assert not opened.done()
        told(made.all[1], new)
        made.all[1].tls.replace(new)
        assert await (await opened).receive_str() == "hello"

    run(test, tmp_path)


@pytest.mark.parametrize("path", ["/1.0/things/who", "/1.0/things/socket"])
def test_who_shows_another_certificate_gets_no_request(tmp_path: Path, path: str) -> None:
    async def test(made: Members, new: KeyPair) -> None:
        made.all[1].tls.replace(new)
        upgrade: dict[str, Any] = {"Upgrade": "websocket", "Connection": "Upgrade"}
        status, answer = await made.ask(0, "GET", path, **(upgrade if path.endswith("socket") else {}))
        assert status == 503
        assert "n2 is not reachable: it shows another certificate than the cluster's" in answer["error"]

    run(test, tmp_path)


def test_after_a_new_key_pair_requests_go_on(tmp_path: Path) -> None:
    async def test(made: Members, new: KeyPair) -> None:
        first = made.all[0]
        assert (await made.ask(0, "GET", "/1.0/things/who"))[0] == 200
        before = first.daemon.forwarder._sessions[True]
        first.daemon.forwarder.rekeyed()
        assert (await made.ask(0, "GET", "/1.0/things/who"))[0] == 200
        assert isinstance(before, aiohttp.ClientSession)
        assert first.daemon.forwarder._sessions[True] is not before
        assert not before.closed, "what runs over it may end"

    run(test, tmp_path)
