"""/1.0/instances of a member without a kernel: lists, changes, refusals."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lxdpy.host.lxc.runtime import ContainerState
from lxdpy.resources.instances import logs
from lxdpy.resources.instances.handlers import routes
from lxdpy.resources.instances.model import INSTANCES
from lxdpy.resources.profiles.model import PROFILES, Profile
from lxdpy.resources.projects.model import PROJECTS, Project
from lxdpy.resources.routes import CONTAINERS, also_at
from tests.lxdpy.fakes import Local, LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER, second_member
from tests.lxdpy.resources.instances.scene import ROOT, instance, ready_store, with_client
from tests.patience import WITHIN

LIST = "/1.0/instances"
C1 = f"{LIST}/c1"


def config_of(store: LocalStore, key: str = "default/c1") -> dict[str, str]:
    return store.state.get(INSTANCES, key).config


def refused(answer: dict[str, Any]) -> tuple[int, str]:
    return answer["error_code"], answer["error"]


async def ended(client: Local, answer: dict[str, Any]) -> str:
    """Why the operation failed, "" if it did not."""
    operation = client.api.daemon.operations.find(answer["metadata"]["id"])
    assert operation is not None
    assert await operation.wait(WITHIN)
    return operation.err


def test_a_list_says_as_much_as_is_asked_for(tmp_path: Path) -> None:
    store = ready_store()
    second_member(store)
    instance(store, "b")
    instance(store, "a", "Running", location=OTHER)

    async def check(client: Local) -> None:
        assert (await client.ask("GET", LIST))["metadata"] == [f"{LIST}/a", f"{LIST}/b"]
        rows = (await client.ask("GET", f"{LIST}?recursion=1"))["metadata"]
        assert [(row["name"], row["location"], "state" in row) for row in rows] == [
            ("a", "n2", False),
            ("b", "none", False),
        ]
        rows = (await client.ask("GET", f"{LIST}?recursion=2"))["metadata"]
        assert [(row["state"]["status"], row["snapshots"]) for row in rows] == [
            ("Running", None),
            ("Stopped", None),
        ]

    with_client(tmp_path, store, check, routes)


def test_a_list_can_be_filtered_by_what_it_shows(tmp_path: Path) -> None:
    store = ready_store()
    profile = Profile("default", "default", config={"limits.cpu": "2"})
    store.put(PROFILES, profile.key, profile)
    instance(store, "a", config={"user.kind": "web"})
    instance(store, "b", config={"limits.cpu": "1"})

    async def check(client: Local) -> None:
        for words, names in (
            ("expanded_config.limits.cpu eq 2", ["a"]),
            ("config.user.kind eq web or name eq b", ["a", "b"]),
            ("status eq Running", []),
        ):
            query = words.replace(" ", "%20")
            listed = (await client.ask("GET", f"{LIST}?filter={query}"))["metadata"]
            assert listed == [f"{LIST}/{name}" for name in names]
            shown = (await client.ask("GET", f"{LIST}?recursion=1&filter={query}"))["metadata"]
            assert [row["name"] for row in shown] == names

    with_client(tmp_path, store, check, routes)


def test_all_are_containers_and_were_called_so_at_first(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1")

    async def check(client: Local) -> None:
        for kind, listed in (("", [C1]), ("container", [C1]), ("virtual-machine", [])):
            assert (await client.ask("GET", f"{LIST}?instance-type={kind}"))["metadata"] == listed
        assert refused(await client.ask("GET", f"{LIST}?instance-type=vm")) == (400, "Invalid instance type")
        assert (await client.ask("GET", CONTAINERS))["metadata"] == [f"{CONTAINERS}/c1"]

    with_client(tmp_path, store, check, routes, also_at(CONTAINERS, routes))


def test_what_never_ran_has_an_empty_log(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1")

    async def check(client: Local) -> None:
        assert (await client.ask("GET", f"{C1}/logs"))["metadata"] == [f"{C1}/logs/lxc.log"]
        reply = await client.reply("GET", f"{C1}/logs/lxc.log")
        assert (reply.status, await reply.read()) == (200, b"")
        assert refused(await client.ask("GET", f"{C1}/logs/lxc.conf"))[0] == 404
        assert (await client.ask("GET", f"{C1}?recursion=1"))["metadata"]["state"]["disk"] == {}

    with_client(tmp_path, store, check, routes, logs.routes)


def test_projects_have_instances_of_their_own(tmp_path: Path) -> None:
    store = ready_store()
    store.put(PROJECTS, "lab", Project("lab"))
    instance(store, "c1")
    instance(store, "c1", project="lab", uuid="lab's")

    async def check(client: Local) -> None:
        assert (await client.ask("GET", f"{LIST}?project=lab"))["metadata"] == [f"{C1}?project=lab"]
        everywhere = (await client.ask("GET", f"{LIST}?all-projects=true"))["metadata"]
        assert everywhere == [C1, f"{C1}?project=lab"]
        assert refused(await client.ask("GET", f"{LIST}?project=gone")) == (404, "Project not found: gone")
        assert (await client.ask("GET", f"{C1}?project=lab"))["metadata"]["project"] == "lab"
        assert refused(await client.ask("GET", f"{LIST}/c2")) == (404, "Instance not found")

    with_client(tmp_path, store, check, routes)


def test_a_create_answers_with_the_operation_that_is_to_come(tmp_path: Path) -> None:
    store = ready_store()

    async def check(client: Local) -> None:
        body = {"name": "c1", "source": {"type": "none"}, "devices": {"root": ROOT}}
        answer = await client.ask("POST", LIST, body)
        row = store.state.get(INSTANCES, "default/c1")
        assert (answer["type"], answer["status_code"]) == ("async", 100)
        assert answer["operation"] == f"/1.0/operations/{row.operation}"
        assert answer["metadata"]["resources"] == {
            "containers": ["/1.0/containers/c1"],
            "instances": ["/1.0/instances/c1"],
        }
        assert refused(await client.ask("POST", LIST, body)) == (409, 'Instance "c1" already exists')
        assert refused(await client.ask("POST", LIST, {"name": 5}))[0] == 400

    with_client(tmp_path, store, check, routes)


def test_a_put_replaces_all_that_is_a_users_and_a_patch_what_it_names(tmp_path: Path) -> None:
    store = ready_store()
    notes = {"volatile.uuid": "uuid-c1", "volatile.eth0.host_name": "veth1"}
    instance(store, "c1", description="d", config={"user.a": "1", "user.b": "2", **notes})

    async def check(client: Local) -> None:
        patch = {"config": {"user.b": "", "user.c": "3"}, "devices": {"tty": {"type": "none"}}}
        assert (await client.ask("PATCH", C1, patch))["type"] == "sync"
        row = store.state.get(INSTANCES, "default/c1")
        assert row.config == {"user.a": "1", "user.c": "3", **notes}
        assert (row.description, sorted(row.devices)) == ("d", ["root", "tty"])
        gone = {"volatile.apply_template": "create", "volatile.eth1.host_name": "veth2"}  # since it was read
        put = {"config": {"user.z": "9", **gone}, "devices": {"root": ROOT}, "profiles": ["default"]}
        assert await ended(client, await client.ask("PUT", C1, put)) == ""
        row = store.state.get(INSTANCES, "default/c1")
        assert (row.config, row.description, sorted(row.devices)) == ({"user.z": "9", **notes}, "", ["root"])

    with_client(tmp_path, store, check, routes)


def test_changes_at_the_same_time_are_all_made(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1")
    names = [f"user.k{number}" for number in range(12)]

    async def check(client: Local) -> None:
        bodies = [{"config": {name: "x"}} for name in names]
        await asyncio.gather(*(client.ask("PATCH", C1, body) for body in bodies))

    with_client(tmp_path, store, check, routes)
    assert sorted(config_of(store)) == sorted(names)


def test_a_change_of_another_version_is_refused(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1")

    async def check(client: Local) -> None:
        etag = (await client.reply("GET", C1)).headers["ETag"]
        body = msgspec.json.encode({"config": {"user.a": "1"}})
        row = store.state.get(INSTANCES, "default/c1")
        noted = msgspec.structs.replace(row, config={**row.config, "volatile.last_state.power": "STOPPED"})
        store.put(INSTANCES, row.key, noted)  # what the daemon notes is no other version
        for method, expected in (("PATCH", 200), ("PATCH", 412), ("PUT", 412)):
            assert (await client.reply(method, C1, body, **{"If-Match": etag})).status == expected

    with_client(tmp_path, store, check, routes)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"config": {"limits.cpu": "no"}}, "limits.cpu"),
        ({"config": {"environment.A": "a\nlxc.x = 1"}}, "Invalid value for environment.A"),
        ({"config": {"cloud-init.network-config": "x: ["}}, "is not a YAML document"),
        ({"devices": {"..": {"type": "none"}}}, "not a dot first"),
        ({"config": {"volatile.new": "1"}}, "volatile.new is set by the daemon only"),
        ({"config": {"volatile.uuid": "other"}}, "volatile.uuid cannot be changed"),
        ({"architecture": "aarch64"}, "architecture of an instance cannot be changed"),
        ({"devices": {"root": {**ROOT, "pool": "gone"}}}, 'The "gone" storage pool doesn\'t exist'),
        ({"devices": {"g": {"type": "gpu", "id": "7"}}}, "no GPU matches id=7"),
        ({"profiles": ["default", "default"]}, "Duplicate profile"),
        ({"devices": {"x": ROOT}}, "More than one root disk"),
        ({"devices": 5}, "devices"),
        (
            {"devices": {"d": {"type": "disk", "source": "/no/such", "path": "/d"}}},
            'Missing source path "/no/such" for disk "d"',
        ),
    ],
)
def test_a_change_that_could_not_be_is_refused_and_changes_nothing(
    tmp_path: Path, body: dict[str, Any], why: str
) -> None:
    store = ready_store()
    row = instance(store, "c1", config={"volatile.uuid": "uuid-c1"})

    async def check(client: Local) -> None:
        code, said = refused(await client.ask("PATCH", C1, body))
        assert (code, why in said) == (400, True), said

    with_client(tmp_path, store, check, routes)
    assert store.state.get(INSTANCES, row.key) == row


def test_what_runs_or_is_protected_is_not_deleted(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1", "Running")
    instance(store, "c2", config={"security.protection.delete": "true"})

    async def check(client: Local) -> None:
        client.api.daemon.runtime.states["c1"] = ContainerState("Running", 7)  # type: ignore[attr-defined]
        assert refused(await client.ask("DELETE", C1)) == (400, "Instance is running")
        assert refused(await client.ask("DELETE", f"{LIST}/c2")) == (403, "Instance is protected")
        assert refused(await client.ask("DELETE", f"{LIST}/c3")) == (404, "Instance not found")

    with_client(tmp_path, store, check, routes)
    assert sorted(store.state.rows(INSTANCES)) == ["default/c1", "default/c2"]


def test_what_is_still_being_created_is_not_changed(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1", "Creating")

    async def check(client: Local) -> None:
        answer = await client.ask("PATCH", C1, {"config": {"user.a": "1"}})
        assert refused(answer) == (409, "The instance is still being created")

    with_client(tmp_path, store, check, routes)
