"""Warnings: raised, counted, resolved, and what operators do with them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import NotFound
from cluster.membership.model import MEMBERS, Member
from lxdpy.host.lxc.limits import CgroupLayout
from lxdpy.resources.cluster.commands import RemoveMember
from lxdpy.resources.lifecycle import all_events
from lxdpy.resources.warnings.commands import (
    DeleteWarning,
    MarkWarning,
    PruneWarnings,
    RaiseWarning,
    ResolveWarnings,
)
from lxdpy.resources.warnings.conditions import controllers
from lxdpy.resources.warnings.handlers import routes
from lxdpy.resources.warnings.model import (
    AUTOSTART_FAILED,
    CONTROLLERS,
    MISSING_SWAP_ACCOUNTING,
    POOL_UNAVAILABLE,
    WARNINGS,
    WarningRow,
    key_of,
)
from lxdpy.resources.warnings.raising import observe, observe_of, raise_warning, resolve
from tests.lxdpy.fakes import MEMBER_ID, Local, LocalStore, local_daemon
from tests.lxdpy.resources.instances.scene import ready_store, with_client

KEY = key_of(POOL_UNAVAILABLE, MEMBER_ID, "/1.0/storage-pools/p1")


def seen(store: LocalStore, uuid: str = "w1", message: str = "no such disk") -> WarningRow:
    command = RaiseWarning(uuid, POOL_UNAVAILABLE, MEMBER_ID, message, "high", "/1.0/storage-pools/p1")
    return store.run(command).get(WARNINGS, KEY)


def test_what_is_seen_again_is_counted_and_keeps_what_was_said_of_it() -> None:
    store = LocalStore()
    first = seen(store)
    store.run(MarkWarning("w1", "acknowledged"))
    store.now += 60
    again = seen(store, "w2", "still none")
    assert (again.uuid, again.count, again.status, again.message) == ("w1", 2, "acknowledged", "still none")
    assert (again.first_seen, again.last_seen) == (first.first_seen, first.first_seen + 60)
    store.run(ResolveWarnings((KEY, "not there")))
    assert store.state.get(WARNINGS, KEY).status == "resolved"
    assert (seen(store).status, seen(store).count) == ("new", 4)


def test_what_was_resolved_long_ago_is_forgotten_and_nothing_else() -> None:
    store = LocalStore()
    seen(store)
    store.run(PruneWarnings(store.now + 1))
    store.run(ResolveWarnings((KEY,)))
    store.run(PruneWarnings(store.now))
    assert list(store.state.rows(WARNINGS)) == [KEY]
    store.run(PruneWarnings(store.now + 1))
    assert not store.state.rows(WARNINGS)


def test_nobody_warns_of_a_member_that_is_gone() -> None:
    with pytest.raises(NotFound):
        LocalStore().run(RaiseWarning("w1", POOL_UNAVAILABLE, "gone", "x"))


def test_operators_acts_are_told_and_the_daemons_are_not() -> None:
    store, heard = LocalStore(), []
    store.watch(lambda applied: heard.extend(applied.changes))
    seen(store)
    store.run(MarkWarning("w1", "acknowledged"))
    store.run(MarkWarning("w1", "new"))
    store.run(ResolveWarnings((KEY,)))
    seen(store)
    store.run(DeleteWarning("w1"))
    by_hand = [
        type(change)(change.table, change.key, change.before, change.after, {"username": "me"})
        for change in heard
    ]
    assert [event.action for event in all_events(heard)] == []
    assert [(event.action, event.source) for event in all_events(by_hand)] == [
        ("warning-acknowledged", "/1.0/warnings/w1"),
        ("warning-reset", "/1.0/warnings/w1"),
        ("warning-deleted", "/1.0/warnings/w1"),
    ]


def test_what_is_observed_is_raised_once_and_resolved_when_it_is_not_any_more(tmp_path: Path) -> None:
    store = LocalStore()
    store.put(MEMBERS, "other", Member("other", "n2"))

    async def check() -> None:
        daemon = local_daemon(tmp_path, store)
        for _ in range(3):
            await observe(
                daemon, POOL_UNAVAILABLE, {"/1.0/storage-pools/p1": "a", "/1.0/storage-pools/p2": "b"}
            )
        await observe_of(daemon, POOL_UNAVAILABLE, {("other", ""): "c"}, ["other"])
        await observe(daemon, POOL_UNAVAILABLE, {"/1.0/storage-pools/p1": "d"})
        index = store.state.index
        await observe(daemon, POOL_UNAVAILABLE, {"/1.0/storage-pools/p1": "d"})
        assert store.state.index == index

    asyncio.run(check())
    rows = store.state.rows(WARNINGS).values()
    assert sorted((row.member, row.entity[-2:], row.count, row.message, row.status) for row in rows) == [
        (MEMBER_ID, "p1", 2, "d", "new"),
        (MEMBER_ID, "p2", 1, "b", "resolved"),
        ("other", "", 1, "c", "new"),
    ]
    assert {row.severity for row in rows} == {"high"}


def test_a_warning_of_an_instance_is_its_projects(tmp_path: Path) -> None:
    store, entity = LocalStore(), "/1.0/instances/c1?project=blue"

    async def check() -> None:
        daemon = local_daemon(tmp_path, store)
        await raise_warning(daemon, AUTOSTART_FAILED, "no image", entity=entity)
        await resolve(daemon, AUTOSTART_FAILED, entity=entity)
        index = store.state.index
        await resolve(daemon, AUTOSTART_FAILED, entity=entity)
        await resolve(daemon, AUTOSTART_FAILED)
        assert store.state.index == index

    asyncio.run(check())
    row = store.state.get(WARNINGS, key_of(AUTOSTART_FAILED, MEMBER_ID, entity))
    assert (row.project, row.status, row.severity) == ("blue", "resolved", "low")


def test_clients_see_mark_and_delete_them(tmp_path: Path) -> None:
    store = ready_store()
    seen(store)

    async def check(client: Local) -> None:
        path = "/1.0/warnings/w1"
        assert (await client.ask("GET", "/1.0/warnings"))["metadata"] == [path]
        shown = (await client.ask("GET", path))["metadata"]
        listed: list[dict[str, Any]] = (await client.ask("GET", "/1.0/warnings?recursion=1"))["metadata"]
        assert listed == [shown]
        keys = ("type", "severity", "status", "count", "location", "project")
        assert [shown[key] for key in keys] == [POOL_UNAVAILABLE, "high", "new", 1, "none", ""]
        for query in ("filter=status+eq+resolved", "project=blue"):
            assert (await client.ask("GET", f"/1.0/warnings?{query}"))["metadata"] == []
        for status, code in (("resolved", 403), ("gone", 400), ("", 400)):
            assert (await client.ask("PUT", path, {"status": status}))["error_code"] == code
        await client.ask("PUT", path, {"status": "acknowledged"})
        assert store.state.get(WARNINGS, KEY).status == "acknowledged"
        assert (await client.ask("DELETE", path))["type"] == "sync"
        answer = await client.ask("DELETE", "/1.0/warnings/")
        assert (answer["error_code"], answer["error"][:20]) == (404, "No warning was named")
        for method in ("GET", "DELETE", "PUT"):
            assert (await client.ask(method, path, {"status": "new"}))["error_code"] == 404

    with_client(tmp_path, store, check, routes)


def test_a_kernel_is_missed_what_it_has_not() -> None:
    whole = CgroupLayout(
        unified=frozenset({"cpu", "cpuset", "io", "memory", "pids", "hugetlb", "freezer", "devices"}),
        memory_swap=True,
    )
    assert not [type_ for type_, found in controllers(whole).items() if found]
    poor = CgroupLayout(legacy=frozenset(CONTROLLERS) - {"pids"})
    assert [type_ for type_, found in controllers(poor).items() if found] == [
        CONTROLLERS["pids"],
        MISSING_SWAP_ACCOUNTING,
    ]


def test_a_removed_members_warnings_go_with_it() -> None:
    store = LocalStore()
    store.put(MEMBERS, "other", Member("other", "n2", status="leaving"))
    seen(store)
    store.run(RaiseWarning("w2", POOL_UNAVAILABLE, "other", "x"))
    store.run(RemoveMember("other"))
    assert list(store.state.rows(WARNINGS)) == [KEY]
