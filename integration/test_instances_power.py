"""Starting and stopping: by many at once, cleanly and by force, quickly, and with the GPUs that go along."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.harness import Done, eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lone() -> Iterator[Cluster]:
    """One member, two fake GPUs."""
    with running(members=1, gpus=2) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def member(lone: Cluster) -> Iterator[Member]:
    yield lone.members[0]
    for row in lxc_json(lone.members[0], "list"):
        lxc(lone.members[0], "delete", "--force", row["name"])


def together(member: Member, *commands: tuple[str, ...]) -> list[Done]:
    """Run them all at the same time."""
    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(lambda words: lxc_try(member, *words, timeout=60), commands))


def status(member: Member, name: str = "c1") -> str:
    return str(member.ask("GET", f"/1.0/instances/{name}")["status"])


def held(member: Member) -> list[str]:
    rows = member.ask("GET", "/1.0/gpus?recursion=1")
    return sorted(holder["instance"] for row in rows for holder in row["holders"])


def test_of_many_starts_one_succeeds_and_the_others_say_why(member: Member) -> None:
    lxc(member, "init", "busybox", "c1", "-c", "limits.gpu=1")
    done = together(member, *[("start", "c1")] * 6)
    assert [one.status for one in done].count(0) == 1
    assert all("already running" in one.err for one in done if one.status)
    assert (status(member), held(member)) == ("Running", ["c1"])


def test_of_many_stops_one_succeeds_and_the_others_say_why(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
    done = together(member, *[("stop", "c1", "--force")] * 6)
    assert [one.status for one in done].count(0) == 1
    assert all("already stopped" in one.err for one in done if one.status)
    assert (status(member), held(member)) == ("Stopped", [])


def test_all_verbs_at_once_end_and_leave_it_in_order(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
    verbs = [
        ("stop", "c1", "--force"), ("start", "c1"), ("restart", "c1", "--force"), ("pause", "c1"),
        ("start", "c1"), ("stop", "c1", "--force"), ("config", "set", "c1", "user.x", "1"), ("start", "c1"),
    ]  # fmt: skip
    for one in together(member, *verbs):
        assert one.status == 0 or "Error:" in one.err
    alive = member.ask("GET", "/1.0/instances/c1/state")["pid"] > 0
    assert alive == (status(member) != "Stopped")
    assert held(member) == (["c1"] if alive else [])


def test_a_delete_by_many_deletes_once(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
    done = together(member, *[("delete", "c1", "--force")] * 4)
    assert 0 in [one.status for one in done]
    assert all("not found" in one.err or "stopped" in one.err for one in done if one.status)
    assert lxc_json(member, "list") == []
    assert held(member) == []


def test_a_forced_stop_cuts_a_clean_one_short(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    lxc(member, "exec", "c1", "--", "sh", "-c", "echo '#!/bin/sh\n>/asked; sleep 600' > /etc/halt")
    with ThreadPoolExecutor() as threads:
        clean = threads.submit(lxc_try, member, "stop", "c1")
        eventually(lambda: lxc(member, "exec", "c1", "--", "cat", "/asked") == "", within=30)
        assert not clean.done()
        assert lxc_try(member, "stop", "c1", "--force", timeout=60).status == 0
        assert clean.result(timeout=60).status == 0
    assert status(member) == "Stopped"


def test_a_clean_stop_that_takes_too_long_fails_and_leaves_it_running(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    lxc(member, "exec", "c1", "--", "sh", "-c", "echo '#!/bin/sh\nsleep 600' > /etc/halt")
    failed = lxc_try(member, "stop", "c1", "--timeout", "1")
    assert "did not shut down within 1 s" in failed.err
    assert status(member) == "Running"


def test_a_restart_keeps_the_gpus_though_others_wait_for_them(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=2")
    with ThreadPoolExecutor() as threads:
        others = [
            threads.submit(lxc_try, member, "init", "busybox", f"w{n}", "-c", "limits.gpu=1")
            for n in range(3)
        ]
        assert lxc_try(member, "restart", "c1", "--force").status == 0
        assert all(one.result(timeout=60).status for one in others)
    assert held(member) == ["c1", "c1"]


def test_a_pause_and_a_start_go_on_where_it_was(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    pid = member.ask("GET", "/1.0/instances/c1/state")["pid"]
    lxc(member, "pause", "c1")
    assert status(member) == "Frozen"
    assert "frozen" in lxc_try(member, "exec", "c1", "--", "true").err
    assert "The container is already frozen" in lxc_try(member, "pause", "c1").err
    lxc(member, "start", "c1")
    assert (status(member), member.ask("GET", "/1.0/instances/c1/state")["pid"]) == ("Running", pid)


def test_a_paused_instance_ends_cleanly(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    lxc(member, "exec", "c1", "--", "sh", "-c", "echo '#!/bin/sh\ntouch /root/ended' > /etc/halt")
    lxc(member, "pause", "c1")
    lxc(member, "stop", "c1")
    assert status(member) == "Stopped"
    lxc(member, "file", "pull", "c1/root/ended", "-")
    assert "The container isn't running" in lxc_try(member, "pause", "c1").err
    assert "The instance is already stopped" in lxc_try(member, "restart", "c1").err


def test_of_all_it_is_told_which_could_not(member: Member) -> None:
    lxc(member, "init", "busybox", "c1")
    lxc(member, "init", "ce", "--empty")
    failed = lxc_try(member, "start", "--all")
    assert "The following instances failed to update state:\n - Instance: ce: " in failed.err
    assert status(member) == "Running"


def test_an_ephemeral_instance_goes_when_it_is_stopped(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "--ephemeral", "-c", "limits.gpu=1")
    lxc(member, "restart", "c1", "--force")
    lxc(member, "config", "set", "c1", "raw.lxc", "lxc.nosuch = 1")
    for again in (("restart", "c1", "--force"), ("start", "c1")):
        assert lxc_try(member, *again).status == 1
        assert status(member) == "Stopped", "that was no stop"
    lxc(member, "config", "unset", "c1", "raw.lxc")
    lxc(member, "start", "c1")
    lxc(member, "stop", "c1")
    assert lxc_json(member, "list") == []
    assert held(member) == []


def test_many_launches_and_deletes_at_once(member: Member) -> None:
    names = [f"c{number}" for number in range(8)]
    assert not [
        one.err for one in together(member, *[("launch", "busybox", name) for name in names]) if one.status
    ]
    assert sorted(row["name"] for row in lxc_json(member, "list") if row["status"] == "Running") == names
    assert not [
        one.err for one in together(member, *[("delete", "-f", name) for name in names]) if one.status
    ]
    assert lxc_json(member, "list") == []
