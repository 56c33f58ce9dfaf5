import asyncio
from pathlib import Path
from typing import Any

from lxdpy.resources.profiles.handlers import routes
from lxdpy.resources.profiles.model import PROFILES
from tests.lxdpy.fakes import Local
from tests.lxdpy.resources.instances.scene import ROOT, instance, ready_store, with_client

DEFAULT = "/1.0/profiles/default"


def test_changes_at_the_same_time_are_all_made(tmp_path: Path) -> None:
    store = ready_store()
    names = [f"user.k{number}" for number in range(20)]

    async def check(client: Local) -> None:
        bodies = [{"config": {name: "x"}} for name in names]
        answers = await asyncio.gather(*(client.ask("PATCH", DEFAULT, body) for body in bodies))
        assert {answer["type"] for answer in answers} == {"sync"}

    with_client(tmp_path, store, check, routes)
    assert sorted(store.state.get(PROFILES, "default/default").config) == sorted(names)


def test_a_change_of_another_version_is_refused(tmp_path: Path) -> None:
    async def check(client: Local) -> None:
        etag = (await client.reply("GET", DEFAULT)).headers["ETag"]
        for method, expected in (("PATCH", 200), ("PATCH", 412), ("PUT", 412)):
            body = b'{"config": {"user.a": "1"}}'
            assert (await client.reply(method, DEFAULT, body, **{"If-Match": etag})).status == expected

    with_client(tmp_path, ready_store(), check, routes)


def test_what_a_patch_does_not_name_stays_and_empty_values_go(tmp_path: Path) -> None:
    store = ready_store()

    async def check(client: Local) -> None:
        first = {"description": "d", "config": {"user.a": "1", "user.b": "2"}, "devices": {"root": ROOT}}
        await client.ask("PUT", DEFAULT, first)
        await client.ask("PATCH", DEFAULT, {"config": {"user.a": "", "user.c": "3"}})
        shown = (await client.ask("GET", DEFAULT))["metadata"]
        assert (shown["description"], shown["devices"]) == ("d", {"root": ROOT})
        assert shown["config"] == {"user.b": "2", "user.c": "3"}
        await client.ask("PUT", DEFAULT, {})
        shown = (await client.ask("GET", DEFAULT))["metadata"]
        assert (shown["description"], shown["config"], shown["devices"]) == ("", {}, {})

    with_client(tmp_path, store, check, routes)


def test_a_root_disk_that_instances_rely_on_stays(tmp_path: Path) -> None:
    store = ready_store()

    async def check(client: Local) -> None:
        await client.ask("PUT", DEFAULT, {"devices": {"root": ROOT}})
        instance(store, "c1", devices={}, pool="default")
        instance(store, "c2", pool="default")  # has its own
        answer = await client.ask("PUT", DEFAULT, {})
        assert (answer["error_code"], "relies on this profile's root disk" in answer["error"]) == (400, True)
        await client.ask("PUT", DEFAULT, {"devices": {"other": {**ROOT, "size": "1GiB"}}})
        assert (await client.ask("GET", DEFAULT))["metadata"]["devices"]["other"]["size"] == "1GiB"

    with_client(tmp_path, store, check, routes)


def test_what_could_not_work_is_refused_with_its_name(tmp_path: Path) -> None:
    nowhere = {"root": {**ROOT, "pool": "nope"}}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"devices": nowhere}, 400, 'The "nope" storage pool doesn\'t exist'),
        ({"config": {"limits.nonsense": "1"}}, 400, "limits.nonsense"),
        ({"config": {"limits.nonsense": ""}}, 400, "limits.nonsense"),  # as `lxc profile unset` sends it
        ({"config": {"limits.cpu": "-1"}}, 400, "limits.cpu"),
        ({"config": {"volatile.uuid": "x"}}, 400, "Volatile keys can only be set on instances"),
        ({"config": {"image.os": "x"}}, 400, "Image keys can only be set on instances"),
        ({"devices": {"x": {"type": "teapot"}}}, 400, "teapot"),
        ({"devices": {"a/b": {"type": "none"}}}, 400, "a/b"),
    ]

    async def check(client: Local) -> None:
        for body, code, why in cases:
            for method, path in (("POST", "/1.0/profiles"), ("PUT", DEFAULT), ("PATCH", DEFAULT)):
                answer = await client.ask(method, path, {"name": "p1", **body})
                assert (answer["error_code"], why in answer["error"]) == (code, True), answer
        assert (await client.ask("GET", "/1.0/profiles"))["metadata"] == [DEFAULT]

    with_client(tmp_path, ready_store(), check, routes)


def test_a_device_that_clashes_with_one_of_an_instance_is_refused(tmp_path: Path) -> None:
    store = ready_store()
    instance(store, "c1", devices={"gpu": {"type": "gpu", "pci": "0000:01:00.0"}})

    async def check(client: Local) -> None:
        answer = await client.ask("PATCH", DEFAULT, {"config": {"limits.gpu": "1"}})
        assert (answer["error_code"], "limits.gpu" in answer["error"]) == (409, True)

    with_client(tmp_path, store, check, routes)


def test_a_rename_is_followed_by_its_users_and_a_used_one_stays(tmp_path: Path) -> None:
    store = ready_store()

    async def check(client: Local) -> None:
        await client.ask("POST", "/1.0/profiles", {"name": "p1"})
        instance(store, "c1", profiles=("default", "p1"))
        again = await client.ask("POST", "/1.0/profiles", {"name": "p1"})
        assert (again["error_code"], again["error"]) == (409, "The profile already exists")
        taken = await client.ask("POST", "/1.0/profiles/p1", {"name": "default"})
        assert (taken["error_code"], taken["error"]) == (409, 'Name "default" already in use')
        await client.ask("POST", "/1.0/profiles/p1", {"name": "p2"})
        listed = (await client.ask("GET", "/1.0/profiles?recursion=1"))["metadata"]
        assert [(row["name"], row["used_by"]) for row in listed] == [
            ("default", ["/1.0/instances/c1"]),
            ("p2", ["/1.0/instances/c1"]),
        ]
        used = await client.ask("DELETE", "/1.0/profiles/p2")
        assert (used["error_code"], used["error"]) == (409, "Profile is currently in use")
        for method, body in (("DELETE", None), ("POST", {"name": "other"})):
            assert (await client.ask(method, DEFAULT, body))["error_code"] == 403

    with_client(tmp_path, store, check, routes)
