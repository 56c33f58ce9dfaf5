"""What clients make of answers, against the real API on a socket."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from cluster.errors import NotFound, Stale, Unavailable, Uncertain
from lxdpy.dev.faults.client import Answer, Client, Notes
from lxdpy.dev.history import Outcome
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes
from tests.lxdpy.fakes import local_daemon, serving

routes = Routes("/1.0/profiles")
REFUSALS = {"stale": Stale, "unavailable": Unavailable, "uncertain": Uncertain, "missing": NotFound}


@routes.on("GET", "/{name}")
async def show(call: Call[None]) -> web.StreamResponse:
    return sync({"description": "value"}, etag="abc")


@routes.on("PUT", "/{name}")
async def update(call: Call[None]) -> web.StreamResponse:
    name = call.path("name")
    if name in REFUSALS:
        raise REFUSALS[name]("no")
    if name == "broken":
        assert call.request.transport is not None
        call.request.transport.abort()
    return sync()


def asked(root: Path, do: Callable[[Client], Answer | None]) -> tuple[Answer | None, Notes]:
    notes = Notes()
    client = Client({"n1": root / "unix.socket"}, notes, "1")

    async def main() -> Answer | None:
        async with serving(local_daemon(root), routes):
            return await asyncio.to_thread(do, client)

    return asyncio.run(main()), notes


@pytest.mark.parametrize(
    ("name", "outcome", "odd"),
    [
        ("fine", "applied", 0),
        ("stale", "refused", 0),
        ("unavailable", "not applied", 0),
        ("uncertain", "unknown", 0),
        ("broken", "unknown", 0),
        ("missing", "unknown", 1),
    ],
)
def test_an_answer_is_a_promise(name: str, outcome: Outcome, odd: int, tmp_path: Path) -> None:
    answer, notes = asked(tmp_path, lambda client: client.put(name, "v", 0))
    assert answer is not None
    assert answer.outcome == outcome
    assert len(notes.odd) == odd
    assert notes.outcomes == {outcome: 1}


def test_a_read_has_value_and_version(tmp_path: Path) -> None:
    answer, _ = asked(tmp_path, lambda client: client.read("any", linearizable=True))
    assert answer is not None
    assert (answer.status, answer.value, answer.etag.strip('"')) == (200, "value", "abc")
    assert answer.index > 0


def test_nothing_was_asked_where_nobody_listens(tmp_path: Path) -> None:
    notes = Notes()
    client = Client({"n1": tmp_path / "unix.socket"}, notes, "1")
    assert client.put("any", "v", 0) is None
    assert (notes.unreachable, dict(notes.outcomes)) == (1, {})
