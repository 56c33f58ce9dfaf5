"""How fresh the state is that a request is served from: as its caller says."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from cluster.errors import Conflict, NotFound, Unavailable
from cluster.state.txn import State
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes
from tests.lxdpy.fakes import LocalStore, local_daemon, serving

routes = Routes("/1.0/things")


@routes.on("GET")
async def show_index(call: Call[None]) -> web.StreamResponse:
    return sync(call.state.index)


class Wanted(msgspec.Struct):
    index: int = 0


def there(call: Call[Any], wanted: int) -> web.StreamResponse:
    if call.state.index < wanted:
        raise NotFound("It is not here")
    return sync(call.state.index)


@routes.on("POST", body=Wanted)
async def post_json(call: Call[Wanted]) -> web.StreamResponse:
    return there(call, call.body.index)


@routes.on("PUT")
async def put_read(call: Call[None]) -> web.StreamResponse:
    return there(call, call.decoded(await call.read(), Wanted).index)


@routes.on("PATCH")
async def patch_streamed(call: Call[None]) -> web.StreamResponse:
    text = b"".join([part async for part in call.request.content.iter_any()])
    return there(call, call.decoded(text, Wanted).index)


@routes.on("DELETE")
async def always_refuse(call: Call[None]) -> web.StreamResponse:
    raise Conflict(f"As of {call.state.index}")


class Lagging(LocalStore):
    """Has not applied what others acknowledged, until it asks the leader; there may be none."""

    leaderless = False

    async def read_index(self, timeout: float = 5.0) -> State:
        if self.leaderless:
            raise Unavailable("The cluster has no leader")
        await self.skip()
        return self.state


def asked(root: Path, store: Lagging, **headers: str) -> tuple[int, int | None]:
    """Status, and the index of the state it was served from."""

    async def main() -> tuple[int, int | None]:
        async with serving(local_daemon(root, store), routes) as client:
            reply = await client.reply("GET", "/1.0/things", None, **headers)
            return reply.status, (await reply.json())["metadata"]

    return asyncio.run(main())


@pytest.mark.parametrize("wanted", ["true", "1"])
def test_a_linearizable_request_sees_what_the_leader_has(wanted: str, tmp_path: Path) -> None:
    store = Lagging()
    before = store.state.index
    assert asked(tmp_path, store, **{"X-Lxdpy-Linearizable": wanted}) == (200, before + 1)


@pytest.mark.parametrize("headers", [{}, {"X-Lxdpy-Linearizable": "false"}])
def test_others_are_served_from_what_is_here(headers: dict[str, str], tmp_path: Path) -> None:
    store = Lagging()
    store.leaderless = True
    assert asked(tmp_path, store, **headers) == (200, store.state.index)


def test_without_a_leader_nothing_is_served_as_fresh(tmp_path: Path) -> None:
    store = Lagging()
    store.leaderless = True
    assert asked(tmp_path, store, **{"X-Lxdpy-Linearizable": "true"}) == (503, None)


def told(root: Path, store: LocalStore, method: str, wanted: int = 0) -> tuple[int, Any]:
    """Status, and what is said: the metadata, or the error's text."""

    async def main() -> tuple[int, Any]:
        async with serving(local_daemon(root, store), routes) as client:
            reply = await client.reply(method, "/1.0/things", msgspec.json.encode(Wanted(wanted)))
            answer = await reply.json()
            return reply.status, answer.get("metadata") or answer["error"]

    return asyncio.run(main())


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_was_refused_by_an_old_state_is_tried_once_more(method: str, tmp_path: Path) -> None:
    store = Lagging()
    index = store.state.index + 1
    assert told(tmp_path, store, method, index) == (200, index)


def test_what_is_refused_by_the_newest_state_is_refused(tmp_path: Path) -> None:
    store = LocalStore()
    assert told(tmp_path, store, "POST", store.state.index + 1) == (404, "It is not here")
    behind = Lagging()
    assert told(tmp_path, behind, "DELETE") == (409, f"As of {behind.state.index}")


def test_a_streamed_body_is_gone_and_without_a_leader_nobody_knows_better(tmp_path: Path) -> None:
    store = Lagging()
    assert told(tmp_path, store, "PATCH", store.state.index + 1)[0] == 404
    store.leaderless = True
    assert told(tmp_path, store, "POST", store.state.index + 1)[0] == 404
