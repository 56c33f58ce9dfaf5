"""Members that are emptied and restored by the stock client: instances move with their GPUs, or run on."""

from collections.abc import Iterator
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try
from integration.instances import clear, crash, failure, instance, sh
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
def members(cluster: Cluster) -> Iterator[list[Member]]:
    yield cluster.members
    for member in cluster.members:
        member.start()
    eventually(lambda: settled(cluster.members[0]), within=30)
    lxc_try(cluster.members[0], "cluster", "restore", "n2", "--force")
    clear(cluster.members[0])


def settled(member: Member) -> bool:
    return all(row["status"] != "Offline" for row in member.ask("GET", "/1.0/cluster/members?recursion=1"))


def where(member: Member) -> dict[str, tuple[str, str]]:
    return {row["name"]: (row["location"], row["status"]) for row in lxc_json(member, "list")}


def holders(member: Member) -> dict[str, list[str]]:
    """Members with the instances that hold their GPUs."""
    found: dict[str, list[str]] = {}
    for gpu in member.ask("GET", "/1.0/gpus?recursion=1"):
        found.setdefault(gpu["member"], []).extend(each["instance"] for each in gpu["holders"])
    return {name: sorted(instances) for name, instances in found.items() if instances}


def config(member: Member, name: str) -> dict[str, Any]:
    found: dict[str, Any] = instance(member, name)["config"]
    return found


def test_instances_move_away_and_come_back(members: list[Member]) -> None:
    first, second, _ = members
    for name, words in {
        "gpu": ("-c", "limits.gpu=2"),
        "plain": (),
        "fixed": ("-c", "cluster.evacuate=stop"),
        "tied": ("-c", "user.x=1"),
    }.items():
        lxc(first, "launch", "busybox", name, "--target", "n2", *words)
    lxc(first, "init", "busybox", "off", "--target", "n2")
    lxc(first, "config", "device", "add", "tied", "etc", "disk", "source=/etc", "path=/mnt/etc")
    sh(first, "gpu", "echo kept >/root/f")
    lxc(first, "snapshot", "gpu", "s0")

    lxc(first, "cluster", "evacuate", "n2", "--force")
    there = where(first)
    assert (there["fixed"], there["tied"]) == (("n2", "Stopped"), ("n2", "Stopped"))
    for name, status in {"gpu": "Running", "plain": "Running", "off": "Stopped"}.items():
        location, now = there[name]
        assert (location in ("n1", "n3"), now) == (True, status), name
        assert config(first, name)["volatile.evacuate.origin"] == "n2"
    assert holders(first) == {there["gpu"][0]: ["gpu", "gpu"]}
    assert sh(first, "gpu", "cat /root/f") == "kept\n"
    assert "already evacuated" in failure(first, "cluster", "evacuate", "n2", "--force")

    lxc(first, "cluster", "rename", "n2", "n9")
    lxc(second, "cluster", "restore", "n9", "--force")
    lxc(first, "cluster", "rename", "n9", "n2")
    assert where(first) == {
        name: ("n2", "Stopped" if name == "off" else "Running")
        for name in ("gpu", "plain", "fixed", "tied", "off")
    }
    assert holders(first) == {"n2": ["gpu", "gpu"]}
    assert "volatile.evacuate.origin" not in config(first, "gpu")
    lxc(first, "restore", "gpu", "s0")
    assert sh(first, "gpu", "cat /root/f") == "kept\n"
    assert "already restored" in failure(first, "cluster", "restore", "n2", "--force")


def test_an_instance_that_nobody_has_gpus_for_runs_on(members: list[Member]) -> None:
    first, _, third = members
    lxc(first, "launch", "busybox", "gpu", "--target", "n2", "-c", "limits.gpu=2")
    lxc(first, "launch", "busybox", "other", "--target", "n3", "-c", "limits.gpu=1")
    lxc(first, "launch", "busybox", "another", "--target", "n1", "-c", "limits.gpu=1")
    sh(first, "gpu", "echo same >/tmp/run")
    said = failure(third, "cluster", "evacuate", "n2", "--force")
    assert "Member evacuated, but gpu: No member fits" in said
    assert where(first)["gpu"] == ("n2", "Running")
    assert sh(first, "gpu", "cat /tmp/run") == "same\n"
    assert holders(first)["n2"] == ["gpu", "gpu"]
    lxc(first, "delete", "--force", "other")
    lxc(third, "cluster", "evacuate", "n2", "--force")  # goes on where it has ended
    assert where(first)["gpu"] == ("n3", "Running")


@pytest.mark.parametrize("point", ["move.reserved", "move.stopped", "move.begun"])
def test_the_member_dies_while_it_is_emptied(members: list[Member], point: str) -> None:
    """What was not on its way yet runs on; and no GPU is kept in vain."""
    first, second, _ = members
    lxc(first, "launch", "busybox", "gpu", "--target", "n2", "-c", "limits.gpu=2")
    crash(second, point, "cluster", "evacuate", "n2", "--force", at=second)
    eventually(lambda: at_peace(first, anywhere=point == "move.begun"), within=60)


def at_peace(member: Member, *, anywhere: bool) -> bool:
    location, status = where(member)["gpu"]
    assert anywhere or location == "n2"
    return status == "Running" and holders(member) == {location: ["gpu", "gpu"]}
