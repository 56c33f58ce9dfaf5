"""A daemon that dies in the middle of something: the next one finishes it, or takes it back."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lone() -> Iterator[Cluster]:
    """One member, two fake GPUs."""
    with running(members=1, gpus=2) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def member(lone: Cluster) -> Iterator[Member]:
    member = lone.members[0]
    member.start()
    yield member
    member.start()
    for row in lxc_json(member, "list"):
        lxc(member, "delete", "--force", row["name"])


def rearm(member: Member, point: str) -> None:
    """Restart the daemon so that it dies when it gets there."""
    member.stop()
    member.start(LXDPY_FAILPOINTS=f"{point}=crash")


def died(member: Member, *words: str) -> None:
    """Run a command that the daemon does not survive; then start another, without points of failure."""
    lxc_try(member, *words)
    eventually(lambda: member.pid() is None, within=30)
    member.start()


def instance(member: Member, name: str = "c1") -> dict[str, Any]:
    row: dict[str, Any] = member.ask("GET", f"/1.0/instances/{name}")
    return row


def status(member: Member, name: str = "c1") -> str:
    return str(instance(member, name)["status"])


def held(member: Member) -> list[str]:
    """Names of the instances that hold GPUs, one for each GPU."""
    rows = member.ask("GET", "/1.0/gpus?recursion=1")
    return sorted(holder["instance"] for row in rows for holder in row["holders"])


def nothing_left(member: Member, name: str) -> None:
    for folder in ("logs", "devices", "run", "storage-pools/default/containers"):
        assert not list((member.folder / folder).glob(f"{name}*")), folder
    assert held(member) == []


@pytest.mark.parametrize("point", ["instance.build", "instance.built"])
def test_a_create_is_finished_after_a_crash(member: Member, point: str) -> None:
    rearm(member, point)
    died(member, "init", "busybox", "c1", "-c", "limits.gpu=1")
    eventually(lambda: status(member) == "Stopped", within=30)
    assert held(member) == ["c1"]
    lxc(member, "start", "c1")
    assert lxc(member, "exec", "c1", "--", "hostname").strip() == "c1"


@pytest.mark.parametrize("point", ["instance.claimed", "instance.attached"])
def test_a_start_that_a_crash_cut_short_leaves_it_stopped(member: Member, point: str) -> None:
    lxc(member, "init", "busybox", "c1", "-c", "limits.gpu=1")
    rearm(member, point)
    died(member, "start", "c1")
    eventually(lambda: held(member) == [], within=30)
    assert status(member) == "Stopped"
    eventually(lambda: not [*(member.folder / "run").iterdir()], within=30)
    lxc(member, "start", "c1")
    assert held(member) == ["c1"]


def test_a_container_that_started_before_the_crash_is_found_running(member: Member) -> None:
    lxc(member, "init", "busybox", "c1", "-c", "limits.gpu=1", "--ephemeral")
    rearm(member, "instance.started")
    died(member, "start", "c1")
    eventually(lambda: status(member) == "Running", within=30)
    assert held(member) == ["c1"]
    assert succeeds(member, "test", "-c", "/dev/nvidia0")
    config = instance(member)["config"]
    assert "/dev/nvidia0=195:0" in config["volatile.gpu.gpu.nodes"]
    assert config["volatile.last_state.power"] == "RUNNING"
    assert config["volatile.eth0.host_name"]
    lxc(member, "stop", "c1", "--force")
    eventually(lambda: lxc_json(member, "list") == [], within=30)
    eventually(lambda: nothing_left(member, "c1"), within=30)


@pytest.mark.parametrize("point", ["instance.halted", "instance.taken-down"])
def test_a_stop_is_finished_after_a_crash(member: Member, point: str) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
    rearm(member, point)
    died(member, "stop", "c1", "--force")
    eventually(lambda: (status(member), held(member)) == ("Stopped", []), within=30)
    lxc(member, "start", "c1")
    assert held(member) == ["c1"]


@pytest.mark.parametrize("point", ["instance.taken-down", "instance.removed"])
def test_a_delete_is_finished_after_a_crash(member: Member, point: str) -> None:
    lxc(member, "init", "busybox", "c1", "-c", "limits.gpu=1")
    rearm(member, point)
    died(member, "delete", "c1")
    eventually(lambda: lxc_json(member, "list") == [], within=30)
    eventually(lambda: nothing_left(member, "c1"), within=30)


def test_a_rename_is_finished_after_a_crash(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    lxc(member, "exec", "c1", "--", "touch", "/root/mine")
    lxc(member, "stop", "c1", "--force")
    rearm(member, "instance.renamed")
    died(member, "rename", "c1", "c2")
    lxc(member, "start", "c2")
    assert lxc(member, "exec", "c2", "--", "ls", "/root").strip() == "mine"
    assert [row["name"] for row in lxc_json(member, "list")] == ["c2"]


def test_a_change_of_a_running_instance_is_finished_after_a_crash(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
    rearm(member, "instance.updated")
    died(member, "config", "device", "add", "c1", "d1", "disk", "source=/etc", "path=/mnt/d1")
    eventually(lambda: succeeds(member, "test", "-e", "/mnt/d1/passwd"), within=30)
    rearm(member, "instance.updated")
    died(member, "config", "unset", "c1", "limits.gpu")
    eventually(lambda: not succeeds(member, "test", "-c", "/dev/nvidia0"), within=30)
    eventually(lambda: held(member) == [], within=30)


def test_a_profile_that_changed_while_the_daemon_was_away_is_followed(member: Member) -> None:
    lxc(member, "profile", "create", "p1")
    lxc(member, "launch", "busybox", "c1", "-p", "default", "-p", "p1")
    rearm(member, "instance.nowhere")
    lxc(member, "profile", "set", "p1", "limits.memory", "100MiB")
    eventually(lambda: memory(member) == 100 << 10, within=30)
    lxc(member, "profile", "device", "add", "p1", "d1", "disk", "source=/etc", "path=/mnt/d1")
    eventually(lambda: succeeds(member, "test", "-e", "/mnt/d1/passwd"), within=30)
    lxc(member, "delete", "--force", "c1")
    lxc(member, "profile", "delete", "p1")


def memory(member: Member, name: str = "c1") -> int:
    """KiB that the container is told to have."""
    words = lxc(member, "exec", name, "--", "grep", "MemTotal", "/proc/meminfo").split()
    return int(words[1])


def inside(member: Member, script: str) -> None:
    lxc(member, "exec", "c1", "--", "sh", "-c", f"({script}) >/dev/null 2>&1 &")


def test_a_poweroff_inside_is_noticed_and_gives_the_gpus_back(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=2")
    inside(member, "sleep 0.2; poweroff -f")
    eventually(lambda: (status(member), held(member)) == ("Stopped", []), within=30)
    eventually(lambda: not [*(member.folder / "run").iterdir()], within=30)


def test_an_ephemeral_instance_goes_with_a_poweroff_inside(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "--ephemeral", "-c", "limits.gpu=1")
    inside(member, "sleep 0.2; poweroff -f")
    eventually(lambda: lxc_json(member, "list") == [], within=30)
    eventually(lambda: nothing_left(member, "c1"), within=30)


def test_what_stopped_while_no_daemon_looked_is_stopped_and_holds_nothing(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
    lxc(member, "launch", "busybox", "c2", "--ephemeral", "-c", "limits.gpu=1")
    script = ">/wait; (while [ -e /wait ]; do sleep 0.1; done; poweroff -f) >/dev/null 2>&1 &"
    for name in ("c1", "c2"):
        lxc(member, "exec", name, "--", "sh", "-c", script)
    pids = [pid_of(member, name) for name in ("c1", "c2")]
    member.kill()
    for pid in pids:
        Path(f"/proc/{pid}/root/wait").unlink()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within=30)
    member.start()
    eventually(
        lambda: [(row["name"], row["status"]) for row in lxc_json(member, "list")] == [("c1", "Stopped")],
        within=30,
    )
    assert held(member) == []


def pid_of(member: Member, name: str = "c1") -> int:
    """Of the first process, on the host."""
    return int(member.ask("GET", f"/1.0/instances/{name}/state")["pid"])


def succeeds(member: Member, *words: str) -> bool:
    return lxc_try(member, "exec", "c1", "--", *words).status == 0


def test_a_reboot_inside_keeps_everything(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=1", "-c", "limits.memory=100MiB")
    hwaddr = instance(member)["config"]["volatile.eth0.hwaddr"]
    pid = pid_of(member)
    inside(member, "sleep 0.2; reboot -f")
    eventually(lambda: pid_of(member) not in (0, pid), within=30)
    eventually(lambda: succeeds(member, "test", "-c", "/dev/nvidia0"), within=30)
    assert memory(member) == 100 << 10
    assert (status(member), held(member)) == ("Running", ["c1"])
    assert hwaddr in lxc(member, "exec", "c1", "--", "cat", "/sys/class/net/eth0/address")


def test_a_reboot_inside_keeps_what_came_and_went_since_the_start(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1", "-c", "limits.gpu=2")
    lxc(member, "config", "set", "c1", "limits.gpu=1")
    lxc(member, "config", "set", "c1", "limits.memory=100MiB")
    lxc(member, "config", "device", "add", "c1", "d1", "disk", "source=/etc", "path=/mnt/d1")
    pid = pid_of(member)
    inside(member, "sleep 0.2; reboot -f")
    eventually(lambda: pid_of(member) not in (0, pid), within=30)
    eventually(lambda: succeeds(member, "test", "-e", "/mnt/d1/passwd"), within=30)
    assert memory(member) == 100 << 10
    cards = lxc(member, "exec", "c1", "--", "sh", "-c", "ls /dev | grep -c '^nvidia[0-9]'").strip()
    assert (cards, held(member)) == ("1", ["c1"])


@contextmanager
def failing(member: Member, points: str) -> Iterator[None]:
    """Within the block the daemon has these points of failure."""
    member.stop()
    member.start(LXDPY_FAILPOINTS=points)
    try:
        yield
    finally:
        member.stop()
        member.start()


def test_an_instance_that_is_being_built_can_be_deleted(member: Member) -> None:
    with failing(member, "instance.build=delay:60"), ThreadPoolExecutor() as threads:
        create = threads.submit(lxc_try, member, "init", "busybox", "c1", "-c", "limits.gpu=1")
        eventually(lambda: lxc_json(member, "list")[0]["status"] == "Creating", within=30)
        for words in (("start", "c1"), ("stop", "c1", "--force"), ("config", "set", "c1", "user.x=1")):
            assert "being created" in lxc_try(member, *words).err
        lxc(member, "delete", "c1")
        assert create.result(timeout=60).status
        assert lxc_json(member, "list") == []
        nothing_left(member, "c1")


def test_a_build_that_fails_leaves_nothing(member: Member) -> None:
    with failing(member, "instance.built=error:No space left to unpack the image"):
        failed = lxc_try(member, "launch", "busybox", "c1", "-c", "limits.gpu=1")
        assert "No space left to unpack the image" in failed.err
        assert lxc_json(member, "list") == []
        nothing_left(member, "c1")


@pytest.mark.parametrize("point", ["instance.claimed", "instance.attached", "instance.started"])
def test_a_start_that_fails_leaves_nothing(member: Member, point: str) -> None:
    lxc(member, "init", "busybox", "c1", "-c", "limits.gpu=1")
    with failing(member, f"{point}=error:not today"):
        assert "not today" in lxc_try(member, "start", "c1").err
        assert (status(member), held(member)) == ("Stopped", [])
        assert not [*(member.folder / "run").iterdir()]
        assert not veths(member)


def veths(member: Member) -> list[str]:
    shown = run(*member.net.enter(member.name, "ip", "-o", "link", "show", "type", "veth"))
    return [line for line in shown.splitlines() if "lxdbr0" in line]


def under_way(member: Member, description: str, number: int = 1) -> None:
    """Until so many such operations run."""

    def found() -> list[dict[str, Any]]:
        rows = member.ask("GET", "/1.0/operations?recursion=1").get("running", [])
        return [row for row in rows if row["description"] == description]

    eventually(lambda: len(found()) == number, within=30)


def test_a_forced_stop_cuts_short_a_clean_one_that_is_yet_to_begin(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    lxc(member, "exec", "c1", "--", "sh", "-c", "echo '#!/bin/sh\nsleep 600' > /etc/halt")
    lxc(member, "stop", "c1", "--force")
    with failing(member, "instance.started=delay:5"), ThreadPoolExecutor() as threads:
        start = threads.submit(lxc_try, member, "start", "c1")
        under_way(member, "Starting instance")
        clean = threads.submit(member.ask, "PUT", "/1.0/instances/c1/state", {"action": "stop"})
        under_way(member, "Stopping instance")
        member.ask("PUT", "/1.0/instances/c1/state", {"action": "stop", "force": True})
        clean.result(timeout=60)
        assert start.result(timeout=60).status == 0
    assert status(member) == "Stopped"


def test_a_start_right_behind_an_end_from_inside_takes_down_what_that_left(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    words = ("listen=tcp:127.0.0.1:4711", "connect=tcp:127.0.0.1:80")
    lxc(member, "config", "device", "add", "c1", "p1", "proxy", *words)
    with failing(member, "instance.updated=delay:5"), ThreadPoolExecutor() as threads:
        eventually(lambda: pid_of(member) > 0, within=30)
        row = instance(member)
        changed = row | {"config": row["config"] | {"user.x": "1"}}
        first = threads.submit(member.ask, "PUT", "/1.0/instances/c1", changed)
        under_way(member, "Updating instance")
        second = threads.submit(member.ask, "PUT", "/1.0/instances/c1", row | {"devices": {}})
        under_way(member, "Updating instance", 2)
        start = threads.submit(member.ask, "PUT", "/1.0/instances/c1/state", {"action": "start"})
        under_way(member, "Starting instance")
        os.kill(pid_of(member), signal.SIGKILL)
        first.exception(timeout=60)  # it may have been too late for that
        second.result(timeout=60)
        start.result(timeout=60)
        assert not [*(member.folder / "devices/c1").glob("*")]


def test_a_start_that_is_under_way_when_the_host_stops_is_stopped_with_it(member: Member) -> None:
    lxc(member, "init", "busybox", "c1")
    member.stop()
    member.start(LXDPY_FAILPOINTS="instance.attached=delay:5")
    with ThreadPoolExecutor() as threads:
        start = threads.submit(lxc_try, member, "start", "c1")
        under_way(member, "Starting instance")
        member.lxdpy("shutdown", "--timeout", "60")
        start.result(timeout=60)
    eventually(lambda: member.pid() is None, within=30)
    assert not [*(member.folder / "run/c1").glob("*")]
    member.start()
    eventually(lambda: pid_of(member) > 0, within=30)  # as what ran when its host stopped
