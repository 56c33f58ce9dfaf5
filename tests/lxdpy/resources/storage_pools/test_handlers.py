import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lxdpy.resources.storage_pools.actions import Pools
from lxdpy.resources.storage_pools.commands import SetPoolMember
from lxdpy.resources.storage_pools.handlers import routes
from lxdpy.resources.storage_pools.model import POOLS, Pool, PoolMember
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon, serving
from tests.lxdpy.resources.cluster.scene import OTHER, clustered
from tests.patience import WITHIN

LIST = "/1.0/storage-pools"


class Alive:
    def online(self, member: str) -> bool:
        return True


def with_client(root: Path, store: LocalStore, check: Callable[[Local], Awaitable[None]]) -> None:
    async def main() -> None:
        pools = Pools()
        pools.daemon = local_daemon(root, store, pools=pools, beat=Alive())
        async with serving(pools.daemon, routes) as client:
            await check(client)

    asyncio.run(main())


async def defined(client: Local) -> None:
    for member in ("n1", "n2"):
        body = {"name": "p1", "driver": "dir", "config": {"source": f"/srv/{member}"}}
        assert (await client.ask("POST", f"{LIST}?target={member}", body))["status_code"] == 200


def reports(store: LocalStore, member: str, part: PoolMember) -> None:
    store.run(SetPoolMember("p1", member, part))


def test_a_pool_is_defined_on_each_member_and_then_created(tmp_path: Path) -> None:
    store = clustered()

    async def check(client: Local) -> None:
        answer = await client.ask("POST", LIST, {"name": "p1", "driver": "dir"})
        said = "Pool not pending on any node (use --target <node> first)"
        assert (answer["error_code"], answer["error"]) == (400, said)
        body = {"name": "p1", "driver": "dir"}
        await client.ask("POST", f"{LIST}?target=n1", body)
        answer = await client.ask("POST", f"{LIST}?target=n1", body)
        said = 'The storage pool already defined on member "n1"'
        assert (answer["error_code"], answer["error"]) == (409, said)
        answer = await client.ask("POST", LIST, body)
        assert (answer["error_code"], answer["error"]) == (400, "Pool not defined on nodes: n2")
        assert store.state.get(POOLS, "p1").status == "Pending"

    with_client(tmp_path, store, check)


def test_a_member_that_fails_is_named_and_may_try_again(tmp_path: Path) -> None:
    store = clustered()

    async def create(client: Local, *parts: PoolMember) -> tuple[int, str]:
        asked = asyncio.create_task(client.ask("POST", LIST, {"name": "p1", "driver": "dir"}))
        async with asyncio.timeout(WITHIN):
            await client.api.daemon.until(
                lambda state: any(p.status == "Pending" for p in state.get(POOLS, "p1").members.values())
                and state.get(POOLS, "p1").status == "Created", WITHIN,
            )  # fmt: skip
        for member, part in zip((MEMBER_ID, OTHER), parts, strict=True):
            reports(store, member, part)
        answer = await asked
        return answer["error_code"], answer["error"]

    async def check(client: Local) -> None:
        await defined(client)
        good = PoolMember({"source": "/srv/n1"}, "Created")
        bad = PoolMember({"source": "/srv/n2"}, "Errored", "No such folder", "invalid")
        assert await create(client, good, bad) == (400, "Member n2: No such folder")
        shown = (await client.ask("GET", f"{LIST}/p1"))["metadata"]
        assert (shown["status"], shown["locations"], shown["config"]) == ("Errored", ["n1", "n2"], {})
        done = PoolMember({"source": "/srv/n2"}, "Created")
        assert await create(client, good, done) == (0, "")
        shown = (await client.ask("GET", f"{LIST}/p1?target=n2"))["metadata"]
        assert (shown["status"], shown["config"]) == ("Created", {"source": "/srv/n2"})
        answer = await client.ask("POST", LIST, {"name": "p1", "driver": "dir"})
        assert (answer["error_code"], answer["error"]) == (409, "The storage pool already exists")

    with_client(tmp_path, store, check)


def test_what_is_each_members_own_is_not_changed_for_all(tmp_path: Path) -> None:
    store = clustered()
    parts = {member: PoolMember({"source": "/srv"}, "Created") for member in (MEMBER_ID, OTHER)}
    store.put(POOLS, "p1", Pool("p1", "dir", status="Created", members=parts))

    async def check(client: Local) -> None:
        for query, said in (
            ("", 'Config key "source" is cluster member specific'),
            ("?target=n1", "Pool source cannot be changed when not in pending state"),
        ):
            answer = await client.ask("PATCH", f"{LIST}/p1{query}", {"config": {"source": "/x"}})
            assert (answer["error_code"], answer["error"]) == (400, said)
        assert (await client.ask("PATCH", f"{LIST}/p1", {"description": "big"}))["error"] == ""
        assert store.state.get(POOLS, "p1") == Pool("p1", "dir", "big", {}, "Created", parts)

    with_client(tmp_path, store, check)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"driver": "dir"}, 400, "No name provided"),
        ({"name": "a/b", "driver": "dir"}, 400, "Storage pool names may not contain slashes"),
        ({"name": "p1"}, 400, "No driver provided"),
        ({"name": "p1", "driver": "dir", "config": {"source": "/x"}}, 400,
         'Config key "source" is cluster member specific'),
    ],
)  # fmt: skip
def test_what_no_pool_can_be(tmp_path: Path, body: object, status: int, said: str) -> None:
    async def check(client: Local) -> None:
        answer = await client.ask("POST", LIST, body)
        assert (answer["error_code"], answer["error"]) == (status, said)

    with_client(tmp_path, clustered(), check)
