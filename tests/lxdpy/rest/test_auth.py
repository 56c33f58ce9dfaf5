"""What each kind of caller gets, over real TLS connections and the unix socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from lxdpy.resources.certificates.model import CERTIFICATES, Certificate
from lxdpy.rest.auth import Identity, permits
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes
from tests.lxdpy.rest.members import Members, members

public = Routes("/1.0")
instances = Routes("/1.0/instances")
metrics = Routes("/1.0/metrics")
internal = Routes("/internal")


@public.on("GET", entitlement="can_view", untrusted=True)
async def server(call: Call[None]) -> web.StreamResponse:
    return sync("trusted" if call.identity.trusted else "untrusted")


@public.on("PUT")
async def configure(call: Call[None]) -> web.StreamResponse:
    return sync()


@instances.on("GET", entitlement="can_view")
async def list_instances(call: Call[None]) -> web.StreamResponse:
    return sync([project for project in ("default", "p", "q") if call.identity.sees(project)])


@instances.on("POST", entitlement="can_create_instances")
async def create_instance(call: Call[None]) -> web.StreamResponse:
    return sync()


@metrics.on("GET", entitlement="can_view_metrics")
async def show_metrics(call: Call[None]) -> web.StreamResponse:
    return sync()


@internal.on("PUT", "/shutdown", internal=True)
async def shutdown(call: Call[None]) -> web.StreamResponse:
    return sync()


Row = dict[str, object]
ASKED = (
    ("GET", "/1.0"),
    ("PUT", "/1.0"),
    ("GET", "/1.0/instances"),
    ("POST", "/1.0/instances"),
    ("POST", "/1.0/instances?project=p"),
    ("GET", "/1.0/instances?all-projects=true"),
    ("GET", "/1.0/metrics"),
    ("PUT", "/internal/shutdown"),
    ("DELETE", "/1.0"),
    ("GET", "/1.0/nothing"),
)


def run(folder: Path, check: Callable[[Members], Awaitable[None]]) -> None:
    async def main() -> None:
        async with members(folder, [public, instances, metrics, internal], count=1) as made:
            await check(made)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("row", "statuses"),
    [
        (None, [200, 403, 403, 403, 403, 403, 403, 403, 403, 404]),
        ({"type": "client"}, [200, 200, 200, 200, 200, 200, 200, 403, 501, 404]),
        ({"type": "server"}, [200, 200, 200, 200, 200, 200, 200, 200, 501, 404]),
        ({"type": "metrics"}, [200, 403, 403, 403, 403, 403, 200, 403, 403, 404]),
        (
            {"type": "client", "restricted": True, "projects": ("p",)},
            [200, 403, 403, 403, 200, 200, 200, 403, 501, 404],
        ),
    ],
)
def test_a_certificate_may_do_what_its_type_may(tmp_path: Path, row: Row | None, statuses: list[int]) -> None:
    async def check(made: Members) -> None:
        fingerprint = made.client.fingerprint()
        if row is not None:
            certificate = Certificate(fingerprint, made.client.pem(), **row)  # type: ignore[arg-type]
            made.all[0].store.put(CERTIFICATES, fingerprint, certificate)
        got = [(await made.ask(0, method, path, None, made.client))[0] for method, path in ASKED]
        assert dict(zip(ASKED, got, strict=True)) == dict(zip(ASKED, statuses, strict=True))

    run(tmp_path, check)


def test_a_certificate_withdrawn_is_refused_at_the_next_request(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        fingerprint = made.client.fingerprint()
        store = made.all[0].store
        store.put(CERTIFICATES, fingerprint, Certificate(fingerprint, made.client.pem()))
        assert (await made.ask(0, "GET", "/1.0/instances", None, made.client))[0] == 200
        store.put(CERTIFICATES, fingerprint, None)
        assert (await made.ask(0, "GET", "/1.0/instances", None, made.client))[0] == 403

    run(tmp_path, check)


def test_a_restricted_certificate_sees_its_projects_only(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        fingerprint = made.client.fingerprint()
        row = Certificate(fingerprint, made.client.pem(), restricted=True, projects=("p",))
        made.all[0].store.put(CERTIFICATES, fingerprint, row)
        _, answer = await made.ask(0, "GET", "/1.0/instances?all-projects=true", None, made.client)
        assert answer["metadata"] == ["p"]

    run(tmp_path, check)


def test_no_certificate_at_all_is_a_stranger(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        for path, status in (("/1.0", 200), ("/1.0/instances", 403)):
            async with made.session.get(made.url(0, path), ssl=made.context(None)) as reply:
                assert reply.status == status

    run(tmp_path, check)


def test_a_client_that_wants_no_strangers_view_gets_none(tmp_path: Path) -> None:
    async def check(made: Members) -> None:
        asked = {"X-LXD-authenticated": "true"}
        assert (await made.ask(0, "GET", "/1.0", None, made.client, **asked))[0] == 403
        assert (await made.ask(0, "GET", "/1.0", None, None, **asked))[0] == 200

    run(tmp_path, check)


@pytest.mark.parametrize("path", ["/1.0/storage-pools", "/1.0/cluster/members", "/1.0/certificates"])
def test_what_is_in_no_project_is_for_a_restricted_certificate_to_look_at(path: str) -> None:
    restricted = Identity("tls", "f", projects=("p",))
    assert permits(restricted, "can_view", "default", path)
    assert not permits(restricted, "can_edit", "p", path)
    assert not permits(restricted, "admin", "p", path)


def test_volumes_are_in_projects_though_their_pools_are_not() -> None:
    restricted = Identity("tls", "f", projects=("p",))
    path = "/1.0/storage-pools/default/volumes/custom"
    assert permits(restricted, "can_edit", "p", path)
    assert not permits(restricted, "can_edit", "default", path)
