"""A host that comes up and goes down: which instances are started, in what order all are stopped."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_json, running
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lone() -> Iterator[Cluster]:
    with running(members=1, gpus=1) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def member(lone: Cluster) -> Iterator[Member]:
    yield lone.members[0]
    lone.members[0].start()
    for row in lxc_json(lone.members[0], "list"):
        lxc(lone.members[0], "delete", "--force", row["name"])


def statuses(member: Member) -> dict[str, str]:
    return {row["name"]: row["status"] for row in lxc_json(member, "list")}


def shut_down(member: Member) -> None:
    member.lxdpy("shutdown", "--timeout", "60")
    eventually(lambda: member.pid() is None, within=30)


def lives(member: Member, name: str, former: list[int]) -> bool:
    pid = member.ask("GET", f"/1.0/instances/{name}/state")["pid"]
    return pid > 0 and pid not in former


def stopped(member: Member) -> list[str]:
    """Names of the instances that were stopped with the host, in order, by the daemon's log."""
    said = re.findall(r"default/(\S+) was stopped with its host", member.tail(200))
    return said[-3:]


def test_a_host_that_stops_starts_again_what_ran(member: Member) -> None:
    keys = {"ran": (), "stays": ("boot.autostart=false",), "off": (), "always": ("boot.autostart=true",)}
    for name, given in keys.items():
        lxc(member, "launch", "busybox", name, *(word for key in given for word in ("-c", key)))
    lxc(member, "config", "set", "ran", "limits.gpu=1")
    lxc(member, "stop", "--force", "off", "always")
    shut_down(member)
    member.start()
    wanted = {"ran": "Running", "stays": "Stopped", "off": "Stopped", "always": "Running"}
    eventually(lambda: statuses(member) == wanted, within=30)
    assert member.ask("GET", "/1.0/instances/ran")["config"]["volatile.last_state.power"] == "RUNNING"


def test_a_daemon_that_ends_leaves_them_running(member: Member) -> None:
    lxc(member, "launch", "busybox", "c1")
    pid = member.ask("GET", "/1.0/instances/c1/state")["pid"]
    member.stop()
    assert Path(f"/proc/{pid}").exists()
    member.start()
    eventually(lambda: statuses(member) == {"c1": "Running"}, within=10)
    assert member.ask("GET", "/1.0/instances/c1/state")["pid"] == pid


def test_what_a_power_cut_ended_runs_again_and_what_ended_by_itself_does_not(member: Member) -> None:
    for name in ("cut", "own"):
        lxc(member, "launch", "busybox", name)
    first = member.ask("GET", "/1.0/instances/cut/state")["pid"]
    member.kill()
    os.kill(first, signal.SIGKILL)
    member.start()
    eventually(lambda: statuses(member) == {"cut": "Stopped", "own": "Running"}, within=30)
    lxc(member, "start", "cut")
    pids = [member.ask("GET", f"/1.0/instances/{name}/state")["pid"] for name in ("cut", "own")]
    member.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    (member.folder / "boot-id").write_text("another\n")  # as after a start of the machine
    member.start()
    eventually(lambda: all(lives(member, name, pids) for name in ("cut", "own")), within=30)


def test_priorities(member: Member) -> None:
    """The highest goes first, at the start and at the stop; each with its own patience."""
    for name, priority in {"c1": "1", "c3": "3", "c2": "2"}.items():
        words = ("-c", f"boot.autostart.priority={priority}", "-c", f"boot.stop.priority={priority}")
        lxc(member, "launch", "busybox", name, *words, "-c", "boot.host_shutdown_timeout=0")
    shut_down(member)
    assert stopped(member) == ["c3", "c2", "c1"]
    member.start()
    eventually(lambda: set(statuses(member).values()) == {"Running"}, within=30)
    rows = sorted(lxc_json(member, "list"), key=lambda row: str(row["last_used_at"]))
    assert [row["name"] for row in rows] == ["c3", "c2", "c1"]
