"""Changes of running instances: limits and devices follow at once, both ways, or the change is taken back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lone() -> Iterator[Cluster]:
    """One member, three fake GPUs: two of NVIDIA's, one of AMD's."""
    with running(members=1, gpus=2) as made:
        member = made.members[0]
        member.gpus.write_text("gpus:\n- {vendor: nvidia, count: 2}\n- {vendor: amd}\n")
        busybox(member)
        eventually(lambda: len(member.ask("GET", "/1.0/gpus")) == 3, within=30)
        yield made


@pytest.fixture
def member(lone: Cluster) -> Iterator[Member]:
    """With a running instance c1."""
    member = lone.members[0]
    lxc(member, "profile", "create", "p1")
    lxc(member, "launch", "busybox", "c1", "-p", "default", "-p", "p1")
    yield member
    for row in lxc_json(member, "list"):
        lxc(member, "delete", "--force", row["name"])
    lxc(member, "profile", "delete", "p1")
    assert held(member) == []
    assert not veths(member)


def instance(member: Member) -> dict[str, Any]:
    row: dict[str, Any] = member.ask("GET", "/1.0/instances/c1")
    return row


def held(member: Member) -> list[str]:
    """Which device of which instance, one for each GPU held."""
    rows = member.ask("GET", "/1.0/gpus?recursion=1")
    return sorted(f"{holder['instance']} {holder['device']}" for row in rows for holder in row["holders"])


def veths(member: Member) -> list[str]:
    shown = run(*member.net.enter(member.name, "ip", "-o", "link", "show", "type", "veth"))
    return [line for line in shown.splitlines() if "lxdbr0" in line]


def sh(member: Member, script: str) -> str:
    return lxc(member, "exec", "c1", "--", "sh", "-c", script).strip()


def files(member: Member) -> set[str]:
    """Device files of GPUs in the container."""
    found = sh(member, "cd /dev; ls -d nvidia* kfd dri/* 2>/dev/null; true").split()
    return {name for name in found if name != "dri"}


def memory(member: Member) -> int:
    """MiB that the container is told to have."""
    return int(sh(member, "grep MemTotal /proc/meminfo").split()[1]) >> 10


def test_limits_follow_and_go_again(member: Member) -> None:
    whole = memory(member), sh(member, "nproc")
    lxc(member, "config", "set", "c1", "limits.memory=100MiB", "limits.cpu=1", "limits.processes=20")
    assert (memory(member), sh(member, "nproc")) == (100, "1")
    assert (
        "can't fork"
        in lxc_try(member, "exec", "c1", "--", "sh", "-c", "for n in $(seq 30); do sleep 100 & done").err
    )
    full = lxc_try(member, "exec", "c1", "--", "true")
    assert "of the 20 processes that limits.processes allows" in full.err
    for key in ("limits.memory", "limits.cpu", "limits.processes"):
        lxc(member, "config", "unset", "c1", key)
    assert (memory(member), sh(member, "nproc")) == whole
    sh(member, "for n in $(seq 30); do sleep 0.1 & done; wait")


def test_a_limit_that_the_kernel_refuses_is_taken_back(member: Member) -> None:
    lxc(member, "config", "set", "c1", "limits.memory=100MiB")
    before = instance(member)["config"]
    refused = lxc_try(member, "config", "set", "c1", "limits.processes=99999999", "limits.memory=50MiB")
    assert "The kernel refused pids.max = 99999999" in refused.err
    assert instance(member)["config"] == before
    assert memory(member) == 100


def test_a_cpu_that_is_not_there_is_refused_and_changes_nothing(member: Member) -> None:
    before = sh(member, "nproc")
    refused = lxc_try(member, "config", "set", "c1", "limits.cpu=97")  # a count: as many as there are
    assert refused.status == 0
    refused = lxc_try(member, "config", "set", "c1", "limits.cpu=97,98")
    assert "has none of these CPUs" in refused.err
    assert instance(member)["config"]["limits.cpu"] == "97"
    assert sh(member, "nproc") == before


def test_a_profile_is_followed_and_what_it_gave_goes_with_it(member: Member) -> None:
    whole = memory(member)
    lxc(member, "profile", "set", "p1", "limits.memory", "100MiB")
    eventually(lambda: memory(member) == 100, within=30)
    lxc(member, "profile", "device", "add", "p1", "d1", "disk", "source=/etc", "path=/mnt/d1")
    eventually(lambda: sh(member, "test -e /mnt/d1/passwd && echo there") == "there", within=30)
    lxc(member, "profile", "set", "p1", "limits.gpu", "1")
    eventually(lambda: "nvidia0" in files(member), within=30)
    assert held(member) == ["c1 gpu"]
    lxc(member, "profile", "unset", "p1", "limits.gpu")
    eventually(lambda: files(member) == set(), within=30)
    eventually(lambda: held(member) == [], within=30)
    lxc(member, "profile", "assign", "c1", "default")
    assert sh(member, "test -e /mnt/d1/passwd || echo gone") == "gone"
    assert memory(member) == whole


def test_a_profile_that_cannot_be_followed_is_at_the_next_start(member: Member) -> None:
    lxc(member, "profile", "device", "add", "p1", "d1", "disk", "source=/nowhere", "path=/mnt/d1")
    lxc(member, "profile", "set", "p1", "limits.memory", "100MiB")
    assert sh(member, "echo alive") == "alive"
    lxc(member, "profile", "device", "remove", "p1", "d1")
    eventually(lambda: memory(member) == 100, within=30)


def test_a_disk_comes_and_goes(member: Member) -> None:
    lxc(member, "config", "device", "add", "c1", "d1", "disk", "source=/etc", "path=/mnt/d1", "readonly=true")
    assert sh(member, "test -e /mnt/d1/passwd && echo there") == "there"
    assert sh(member, "touch /mnt/d1/x 2>/dev/null || echo refused") == "refused"
    lxc(member, "config", "device", "set", "c1", "d1", "path=/mnt/d2")
    assert sh(member, "ls /mnt/d1; test -e /mnt/d2/passwd && echo there") == "there"
    lxc(member, "config", "device", "remove", "c1", "d1")
    assert sh(member, "ls /mnt") == ""


def test_a_disk_whose_source_is_missing_is_not_recorded(member: Member) -> None:
    failed = lxc_try(member, "config", "device", "add", "c1", "d1", "disk", "source=/nowhere", "path=/mnt/d1")
    assert 'Missing source path "/nowhere" for disk "d1"' in failed.err
    assert instance(member)["devices"] == {}
    assert sh(member, "ls /mnt") == ""


def test_a_nic_comes_and_goes(member: Member) -> None:
    lxc(member, "config", "device", "add", "c1", "second", "nic", "network=lxdbr0")
    assert sh(member, "ls /sys/class/net").split() == ["eth0", "eth1", "lo"], "the first name that was free"
    hwaddr = instance(member)["config"]["volatile.second.hwaddr"]
    assert sh(member, "cat /sys/class/net/eth1/address") == hwaddr
    sh(member, "ip link set eth1 up; udhcpc -n -q -i eth1 >/dev/null 2>&1")
    lxc(member, "restart", "c1", "--force")
    assert sh(member, "cat /sys/class/net/eth1/address") == hwaddr
    lxc(member, "config", "device", "remove", "c1", "second")
    assert sh(member, "ls /sys/class/net").split() == ["eth0", "lo"]
    assert not [key for key in instance(member)["config"] if key.startswith("volatile.second.")]


def test_gpus_come_and_go_and_their_control_files_stay_with_the_last(member: Member) -> None:
    lxc(member, "config", "device", "add", "c1", "g1", "gpu", "count=1", "match=vendor=nvidia")
    first = files(member)
    lxc(member, "config", "device", "add", "c1", "g2", "gpu", "count=1", "match=vendor=nvidia")
    lxc(member, "config", "device", "add", "c1", "g3", "gpu", "count=1", "match=vendor=amd")
    assert held(member) == ["c1 g1", "c1 g2", "c1 g3"]
    assert {"nvidia0", "nvidia1", "kfd"} < files(member)
    lxc(member, "config", "device", "remove", "c1", "g2")
    lxc(member, "config", "device", "remove", "c1", "g3")
    assert files(member) == first
    assert "nvidiactl" in first
    refused = sh(member, "(: < /dev/nvidiactl) 2>&1 || true")
    assert refused.endswith("No such device or address"), "granted, but there is no driver"
    lxc(member, "config", "device", "remove", "c1", "g1")
    assert files(member) == set()
    assert held(member) == []


def test_two_gpu_devices_are_named_in_one_environment(member: Member) -> None:
    lxc(member, "stop", "c1", "--force")
    for name in ("g1", "g2"):
        lxc(member, "config", "device", "add", "c1", name, "gpu", "count=1", "match=vendor=nvidia")
    lxc(member, "start", "c1")
    environment = sh(member, "tr '\\0' '\\n' < /proc/1/environ | grep NVIDIA_VISIBLE")
    config = instance(member)["config"]
    names = [config[f"volatile.{device}.gpu.uuids"] for device in ("g1", "g2")]
    assert environment == f"NVIDIA_VISIBLE_DEVICES={','.join(names)}"


def test_gpus_that_are_not_free_are_refused_and_nothing_is_recorded(member: Member) -> None:
    lxc(member, "launch", "busybox", "c2", "-c", "limits.gpu=2", "-c", "gpu.match=vendor=nvidia")
    lxc(member, "config", "set", "c1", "limits.gpu=1", "gpu.match=vendor=amd")
    before = files(member), instance(member)["config"]
    refused = lxc_try(member, "config", "set", "c1", "limits.gpu=2", "gpu.match=")
    assert "1 of 3 GPUs free" in refused.err
    assert (files(member), instance(member)["config"]) == before
    assert held(member) == ["c1 gpu", "c2 gpu", "c2 gpu"]


def test_a_change_of_which_only_a_part_can_be_done_is_taken_back_whole(member: Member) -> None:
    lxc(member, "config", "set", "c1", "limits.gpu=1", "gpu.match=vendor=amd")
    row = instance(member)
    before = files(member), memory(member), row["config"], held(member)
    devices = {"d1": {"type": "disk", "source": "/etc", "path": "/etc/passwd/below"}}
    config = {**row["config"], "limits.gpu": "2", "gpu.match": "vendor=nvidia", "limits.memory": "100MiB"}
    body = {"config": config, "devices": devices, "profiles": row["profiles"]}
    with pytest.raises(Exception, match="Not a directory"):
        member.ask("PUT", "/1.0/instances/c1", body)
    after = instance(member)
    assert (files(member), memory(member), after["config"], held(member)) == before
    assert after["devices"] == {}
    lxc(member, "config", "unset", "c1", "limits.gpu")
    assert files(member) == set()


def test_changes_at_the_same_time_are_all_made(member: Member) -> None:
    with ThreadPoolExecutor() as threads:
        bodies = [{"config": {f"user.k{n}": str(n)}} for n in range(12)]
        list(threads.map(lambda body: member.ask("PATCH", "/1.0/instances/c1", body), bodies))
    config = instance(member)["config"]
    assert [config.get(f"user.k{n}") for n in range(12)] == [str(n) for n in range(12)]


def test_a_stopped_instance_takes_any_change_at_its_next_start(member: Member) -> None:
    lxc(member, "stop", "c1", "--force")
    lxc(member, "config", "set", "c1", "limits.memory=100MiB", "security.nesting=true")
    lxc(member, "config", "device", "add", "c1", "d1", "disk", "source=/etc", "path=/mnt/d1")
    lxc(member, "start", "c1")
    assert memory(member) == 100
    assert sh(member, "test -e /mnt/d1/passwd && ls -d /dev/.lxc/proc") == "/dev/.lxc/proc"
