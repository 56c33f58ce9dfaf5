from pathlib import Path

import pytest

from cluster.membership.model import MEMBERS
from lxdpy.resources.cluster.shown import member_keys
from lxdpy.resources.storage_pools.model import POOLS, Pool
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore
from tests.lxdpy.resources.cluster.scene import clustered, with_client

MEMBER = "/1.0/cluster/members/n1"
ROLES = ["database-leader", "database"]


def test_a_member_says_what_lxd_says_of_one(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        shown = (await client.ask("GET", MEMBER))["metadata"]
        assert shown == {
            "server_name": "n1", "url": "https://10.0.0.1:8443", "database": True, "status": "Online",
            "message": "Fully operational", "architecture": "", "roles": ROLES, "failure_domain": "default",
            "description": "", "config": {}, "groups": ["default"],
        }  # fmt: skip

    with_client(tmp_path, clustered(), check)


def test_a_patch_can_empty_a_description_and_leaves_the_rest(tmp_path: Path) -> None:
    store = clustered()

    async def check(client: Local) -> None:
        body = {"description": "left rack", "failure_domain": "a", "config": {"user.rack": "1"}}
        assert (await client.ask("PATCH", MEMBER, body))["status_code"] == 200
        assert (await client.ask("PATCH", MEMBER, {"config": {"user.slot": "2"}}))["status_code"] == 200
        row = store.state.get(MEMBERS, MEMBER_ID)
        assert (row.description, row.failure_domain) == ("left rack", "a")
        assert row.config == {"user.rack": "1", "user.slot": "2"}
        await client.ask("PATCH", MEMBER, {"description": "", "config": {"user.rack": ""}})
        row = store.state.get(MEMBERS, MEMBER_ID)
        assert (row.description, row.config) == ("", {"user.slot": "2"})

    with_client(tmp_path, store, check)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"roles": ROLES}, 400, "Cluster members need to belong to at least one group"),
        ({"roles": ["database"], "groups": ["default"]}, 400,
         'The "database-leader" role cannot be dropped at this time'),
        ({"roles": [*ROLES, "king"]}, 400, 'Update roles: Invalid cluster role "king"'),
        ({"roles": [*ROLES, "database-standby"], "groups": ["default"]}, 400,
         'The "database-standby" role cannot be added at this time'),
        ({"roles": ROLES, "groups": ["x"]}, 404, "Cluster group not found: x"),
    ],
)  # fmt: skip
def test_a_member_is_not_given_what_it_cannot_be(
    tmp_path: Path, body: object, status: int, said: str
) -> None:
    store = clustered()
    before = store.state.tables

    async def check(client: Local) -> None:
        answer = await client.ask("PUT", MEMBER, body)
        assert (answer["error_code"], answer["error"]) == (status, said)

    with_client(tmp_path, store, check)
    assert store.state.tables == before


def test_who_would_leave_nobody_behind_that_is_there_stays(tmp_path: Path) -> None:
    """It would be leaving for as long as the others are away, and they could not be removed either."""
    store = clustered()

    async def check(client: Local) -> None:
        answer = await client.ask("DELETE", f"{MEMBER}?force=1")
        said = "No other member is online: n1 cannot be removed now"
        assert (answer["error_code"], answer["error"]) == (409, said)
        assert store.state.get(MEMBERS, MEMBER_ID).status == "ready"

    with_client(tmp_path, store, check)


def test_there_are_no_members_without_a_cluster(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        path = "/1.0/cluster/members"
        for method, below in (
            ("GET", ""), ("POST", ""), ("GET", "/none"), ("PUT", "/none"), ("PATCH", "/none"),
            ("POST", "/none"), ("DELETE", "/none"),
        ):  # fmt: skip
            answer = await client.ask(method, path + below, {})
            assert (answer["error_code"], answer["error"]) == (400, "This server is not clustered")

    with_client(tmp_path, LocalStore(), check)


def test_enabling_takes_a_name(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        answer = await client.ask("PUT", "/1.0/cluster", {"enabled": True})
        said = "ServerName is required when enabling clustering"
        assert (answer["error_code"], answer["error"]) == (400, said)

    with_client(tmp_path, LocalStore(), check)


def test_a_joiner_is_asked_for_the_keys_that_the_pools_driver_has() -> None:
    store = LocalStore()
    store.put(POOLS, "p1", Pool("p1", "dir"))
    store.put(POOLS, "p2", Pool("p2", "btrfs"))
    asked = [(row["name"], row["key"]) for row in member_keys(store.state)]
    assert asked == [("p1", "source"), ("p2", "source"), ("p2", "size")]
