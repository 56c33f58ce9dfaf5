"""The stream as a client sees it, over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from lxdpy.daemon import hub
from lxdpy.resources.certificates.model import CERTIFICATES, Certificate
from lxdpy.resources.events.handlers import routes
from lxdpy.resources.lifecycle import Lifecycle
from tests.lxdpy.fakes import Local, LocalStore, local_daemon, serving
from tests.lxdpy.rest.members import Members, members
from tests.patience import WITHIN, eventually


def run(root: Path, check: Callable[[Local, LocalStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = LocalStore()
        daemon = local_daemon(root, store)
        async with serving(daemon, routes) as client:
            await check(client, store)

    asyncio.run(main())


async def listen(client: Local, query: str = "") -> aiohttp.ClientWebSocketResponse:
    before = len(client.hub._listeners)
    stream = await client.session.ws_connect(f"{client.base}/1.0/events{query}")
    await eventually(lambda: len(client.hub._listeners) > before)
    return stream


async def event(stream: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    text = await stream.receive_str(timeout=WITHIN)
    heard: dict[str, Any] = msgspec.json.decode(text)
    return heard


async def silence(stream: aiohttp.ClientWebSocketResponse) -> bool:
    try:
        await stream.receive(timeout=0.1)
    except TimeoutError:
        return True
    return False


def test_an_event_has_lxds_fields_in_lxds_order(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        stream = await listen(client)
        client.hub.publish("operation", {"id": "1"}, project="default")
        heard = await event(stream)
        assert list(heard) == ["type", "timestamp", "metadata", "location", "project"]
        assert (heard["type"], heard["metadata"], heard["location"]) == ("operation", {"id": "1"}, "none")

    run(tmp_path, check)


def test_a_listener_gets_its_types_and_its_project(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        stream = await listen(client, "?type=lifecycle,operation&project=p")
        everything = await listen(client, "?all-projects=true")
        client.hub.publish("logging", {"message": "m"})
        client.hub.publish("operation", {"id": "other"}, project="default")
        client.hub.publish("operation", {"id": "mine"}, project="p")
        client.hub.lifecycle(Lifecycle("config-updated", "/1.0", project=""))
        assert (await event(stream))["metadata"] == {"id": "mine"}
        assert (await event(stream))["metadata"] == {"action": "config-updated", "source": "/1.0"}
        assert [(await event(everything))["type"] for _ in range(4)] == [
            "logging", "operation", "operation", "lifecycle",
        ]  # fmt: skip

    run(tmp_path, check)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        answer = await client.ask("GET", "/1.0/events?type=gossip", None)
        assert (answer["error_code"], answer["error"]) == (400, '"gossip" isn\'t a supported event type')
        assert (await client.ask("GET", "/1.0/events"))["error_code"] == 400

    run(tmp_path, check)


def test_a_listener_that_takes_nothing_is_cut_off_and_harms_no_other(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("lxdpy.daemon.hub.STALLED_AFTER", 0.3)

    async def check(client: Local, _store: LocalStore) -> None:
        _, stuck = await asyncio.open_unix_connection(str(tmp_path / "unix.socket"), limit=1)
        stuck.write(
            b"GET /1.0/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await eventually(lambda: client.hub._listeners)
        stream = await listen(client)
        big = "x" * 100_000
        for number in range(40):
            client.hub.publish("operation", {"number": number, "big": big}, project="default")
            assert (await event(stream))["metadata"]["number"] == number
            await asyncio.sleep(0.02)
        assert len(client.hub._listeners) == 1
        stuck.close()
        await stuck.wait_closed()

    run(tmp_path, check)


def test_a_hundred_listeners_hear_of_all_events_in_order(tmp_path: Path) -> None:
    async def check(client: Local, _store: LocalStore) -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(tmp_path / "unix.socket"), limit=0)
        ) as session:
            streams = [await session.ws_connect("http://lxd/1.0/events") for _ in range(100)]
            await eventually(lambda: len(client.hub._listeners) == 100)
            for number in range(20):
                client.hub.publish("operation", {"id": number, "resources": {"instances": ["x"] * 5}})
            for stream in streams:
                heard = [(await event(stream))["metadata"]["id"] for _ in range(20)]
                assert heard == list(range(20))

    run(tmp_path, check)


def test_events_of_one_member_are_heard_at_the_others(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        near = made.all[0]
        url = made.url(1, "/1.0/events")
        async with made.session.ws_connect(url, ssl=made.context(near.keys)) as stream:
            await eventually(lambda: made.all[1].daemon.hub._listeners)
            near.daemon.hub.publish("operation", {"id": "1"}, project="default")
            heard = await event(stream)
            assert (heard["metadata"], heard["location"]) == ({"id": "1"}, "n1")
            near.daemon.hub.lifecycle(Lifecycle("profile-created", "/1.0/profiles/p"))
            assert await silence(stream)  # the far member makes its own from the log

    async def main() -> None:
        async with members(tmp_path, [routes]) as made:
            await check(made)

    asyncio.run(main())


def test_an_event_waits_for_what_was_written_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "AGREE_WITHIN", 60.0)

    async def check(made: Members) -> None:
        behind, ahead = made.all
        await ahead.store.skip()
        context = made.context(made.all[0].keys)
        async with made.session.ws_connect(made.url(0, "/1.0/events"), ssl=context) as stream:
            await eventually(lambda: behind.daemon.hub._listeners)
            ahead.daemon.hub.publish("operation", {"id": "1"})
            assert await silence(stream)
            await behind.store.skip()
            ahead.daemon.hub.publish("operation", {"id": "2"})
            assert [(await event(stream))["metadata"]["id"] for _ in range(2)] == ["1", "2"]

    async def main() -> None:
        async with members(tmp_path, [routes]) as made:
            await check(made)

    asyncio.run(main())


def test_a_restricted_client_hears_its_projects_and_no_logs(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        member = made.all[0]
        fingerprint = made.client.fingerprint()
        row = Certificate(fingerprint, made.client.pem(), restricted=True, projects=("p",))
        member.store.put(CERTIFICATES, fingerprint, row)
        context = made.context(made.client)
        async with made.session.ws_connect(
            made.url(0, "/1.0/events?all-projects=true"), ssl=context
        ) as stream:
            await eventually(lambda: member.daemon.hub._listeners)
            member.daemon.hub.publish("logging", {"message": "m"})
            member.daemon.hub.publish("operation", {"id": "1"}, project="default")
            member.daemon.hub.publish("operation", {"id": "2"}, project="p")
            assert (await event(stream))["metadata"] == {"id": "2"}
        for path in ("/1.0/events?project=default", "/1.0/events?type=logging&project=p"):
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            assert (await made.ask(0, "GET", path, None, made.client, **headers))[0] == 403

    async def main() -> None:
        async with members(tmp_path, [routes], count=1) as made:
            await check(made)

    asyncio.run(main())
