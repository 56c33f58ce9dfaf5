from pathlib import Path

import pytest

from cluster.membership.model import GROUPS, MEMBERS
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore
from tests.lxdpy.resources.cluster.scene import clustered, with_client

GROUP = "/1.0/cluster/groups/gpus"


def test_a_group_lives_from_creation_to_deletion(tmp_path: Path) -> None:
    store = clustered()

    async def check(client: Local) -> None:
        made = await client.reply("POST", "/1.0/cluster/groups", b'{"name": "gpus", "members": ["n1"]}')
        assert (made.status, made.headers["Location"]) == (201, GROUP)
        shown = (await client.ask("GET", GROUP))["metadata"]
        assert shown == {"name": "gpus", "description": "", "members": ["n1"]}
        await client.ask("PUT", GROUP, {"description": "fast ones", "members": ["n2"]})
        assert store.state.get(MEMBERS, MEMBER_ID).groups == ("default",)
        await client.ask("PATCH", GROUP, {"members": []})
        assert store.state.get(GROUPS, "gpus").description == "fast ones"
        await client.ask("PATCH", GROUP, {"description": ""})
        assert store.state.get(GROUPS, "gpus").description == ""
        moved = await client.reply("POST", GROUP, b'{"name": "slow"}')
        assert moved.headers["Location"] == "/1.0/cluster/groups/slow"
        assert (await client.ask("DELETE", "/1.0/cluster/groups/slow"))["status_code"] == 200
        assert list(store.state.rows(GROUPS)) == ["default"]

    with_client(tmp_path, store, check)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "", {"name": "default"}, 409, "This cluster group already exists"),
        ("POST", "", {"name": ""}, 400, "No name provided"),
        ("POST", "", {"name": "a/b"}, 400, "Cluster group names may not contain slashes"),
        ("POST", "", {"name": "@a"}, 400, 'Invalid cluster group name "@a"'),
        ("POST", "/default", {"name": "@a"}, 400, 'Invalid cluster group name "@a"'),
        ("POST", "/default", {"name": "x"}, 403, 'The "default" group cannot be renamed'),
        ("POST", "/default", {"name": "default"}, 409, 'Name "default" already in use'),
        ("POST", "/none", {"name": "x"}, 404, "Cluster group not found: none"),
        ("DELETE", "/default", None, 403, 'The "default" cluster group cannot be removed'),
        ("PUT", "/default", {"members": ["n3"]}, 404, "Member not found: n3"),
    ],
)
def test_what_cannot_be_says_so_and_changes_nothing(
    tmp_path: Path, method: str, path: str, body: object, status: int, said: str
) -> None:
    store = clustered()
    before = store.state.tables

    async def check(client: Local) -> None:
        answer = await client.ask(method, f"/1.0/cluster/groups{path}", body)
        assert (answer["error_code"], answer["error"]) == (status, said)

    with_client(tmp_path, store, check)
    assert store.state.tables == before


def test_there_are_no_groups_without_a_cluster(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        for method, path in (
            ("GET", ""), ("POST", ""), ("GET", "/default"), ("PUT", "/default"), ("PATCH", "/default"),
            ("POST", "/default"), ("DELETE", "/default"),
        ):  # fmt: skip
            answer = await client.ask(method, f"/1.0/cluster/groups{path}", {})
            assert (answer["error_code"], answer["error"]) == (400, "This server is not clustered")

    with_client(tmp_path, LocalStore(), check)
