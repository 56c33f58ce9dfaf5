"""Pools of a cluster: made in two steps, never taken from under an instance."""

from collections.abc import Iterator
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_try
from integration.instances import clear, debian, instance, sh
from lxdpy.dev.leftovers import loops, mounts
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
SMALL = "128MiB"  # the least a btrfs pool takes: busybox fits, Debian (200 MB) does not
COPIES = 5


@pytest.fixture(scope="module", autouse=True)
def image(cluster: Cluster) -> None:
    lxc(cluster.members[1], "image", "import", str(debian()), "--alias", "debian")


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    one = cluster.members[0]
    clear(one)
    for pool in one.ask("GET", "/1.0/storage-pools?recursion=1"):
        if pool["name"] != "default":
            lxc(one, "storage", "delete", pool["name"])
    eventually(lambda: not loops_of(cluster), within=15)


def loops_of(cluster: Cluster) -> list[str]:
    return [file for file in loops().values() if file.startswith(str(cluster.state))]


def made(cluster: Cluster, name: str, size: str, *, early: str = "") -> None:
    """A btrfs pool on a file of each member, in LXD's two steps, through members in turn.

    The second step after the first member's is refused with `early`, if that is given.
    """
    for number, member in enumerate(cluster.members):
        via = cluster.members[number - 1]
        lxc(via, "storage", "create", name, "btrfs", f"size={size}", "--target", member.name)
        if early and number == 0:
            assert early in lxc_try(via, "storage", "create", name, "btrfs").err
    lxc(cluster.members[2], "storage", "create", name, "btrfs")


def pool(member: Member, name: str) -> dict[str, Any]:
    found: dict[str, Any] = member.ask("GET", f"/1.0/storage-pools/{name}")
    return found


def used(member: Member, name: str) -> int:
    space = member.ask("GET", f"/1.0/storage-pools/{name}/resources?target={member.name}")["space"]
    return int(space["used"])


def test_a_btrfs_pool_is_made_in_two_steps_and_holds_instances(cluster: Cluster) -> None:
    one, two, three = cluster.members
    made(cluster, "fast", "2GiB", early="Pool not defined on nodes: n2, n3")
    assert pool(two, "fast")["status"] == "Created"
    assert len(loops_of(cluster)) == 3
    for member in cluster.members:
        lxc(three, "launch", "busybox", f"on-{member.name}", "-s", "fast", "--target", member.name)
        sh(two, f"on-{member.name}", "echo kept >/root/file")
    refused = lxc_try(two, "storage", "delete", "fast")
    assert refused.status
    assert "in use" in refused.err
    one.kill()
    one.start()
    eventually(lambda: sh(two, "on-n1", "cat /root/file") == "kept\n", within=20)
    lxc(two, "restart", "on-n1", "--force")
    assert sh(three, "on-n1", "cat /root/file") == "kept\n"
    clear(three)
    lxc(two, "storage", "delete", "fast")
    eventually(lambda: not loops_of(cluster), within=15)
    assert not [path for path in mounts() if path.is_relative_to(cluster.state) and "fast" in path.name]


def test_instances_share_what_their_image_takes(cluster: Cluster) -> None:
    one, two, three = cluster.members
    made(cluster, "fast", "2GiB")
    words = ("--target", "n1", "-s", "fast")
    lxc(two, "init", "debian", "first", *words)
    before = used(one, "fast")
    for number in range(COPIES):
        lxc(three, "init", "debian", f"c{number}", *words)
    assert used(one, "fast") - before < 20 << 20, "five copies of 200 MB would be a gigabyte"


def test_a_pool_too_small_for_the_image_says_so_and_keeps_nothing_of_it(cluster: Cluster) -> None:
    one, two, three = cluster.members
    made(cluster, "small", SMALL)
    lxc(two, "launch", "busybox", "fits", "-s", "small", "--target", "n1")
    refused = lxc_try(two, "launch", "debian", "big", "-s", "small", "--target", "n1", timeout=170)
    assert refused.status
    assert "No space left to unpack the image" in refused.err
    eventually(lambda: lxc_try(three, "info", "big").status, within=15)  # the reservation is taken back
    where = one.folder / "storage-pools" / "small"
    inside = one.net.enter(one.name, "find", str(where), "-maxdepth", "2", "-name", ".*")
    assert not [line for line in run(*inside).splitlines() if "part" in line]
    assert sh(two, "fits", "echo still >/root/file; cat /root/file") == "still\n"
    lxc(two, "launch", "busybox", "more", "-s", "small", "--target", "n1")


def test_a_full_pool_refuses_creates_and_leaves_no_trace(cluster: Cluster) -> None:
    _, two, three = cluster.members
    made(cluster, "small", SMALL)
    lxc(two, "launch", "busybox", "greedy", "-s", "small", "--target", "n1")
    said = sh(two, "greedy", "dd if=/dev/zero of=/root/all bs=1M; sync")
    assert "No space left" in said
    assert instance(three, "greedy")["status"] == "Running"
    done = lxc_try(two, "init", "busybox", "late", "-s", "small", "--target", "n1")
    if done.status:  # a snapshot may still fit where no file does
        assert "No space left" in done.err
        eventually(lambda: lxc_try(three, "info", "late").status, within=15)
    else:
        lxc(two, "delete", "late")
    lxc(three, "delete", "--force", "greedy")
    eventually(
        lambda: lxc_try(two, "init", "busybox", "after", "-s", "small", "--target", "n1").status == 0,
        within=60,
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("btrfs", "size=1MiB", "--target", "n1"), "128mib"),
        (("teapot", "--target", "n1"), "teapot"),
        (("btrfs", "size=lots", "--target", "n1"), "lots"),
        (("btrfs", "colour=red", "--target", "n1"), "colour"),
        (("btrfs", "--target", "n9"), "n9"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_the_reason(
    cluster: Cluster, words: tuple[str, ...], why: str
) -> None:
    refused = lxc_try(cluster.members[1], "storage", "create", "bad", *words)
    if not refused.status:  # what only the member can tell is told by the second step
        for name in ("n2", "n3"):
            lxc(cluster.members[1], "storage", "create", "bad", words[0], "--target", name)
        refused = lxc_try(cluster.members[1], "storage", "create", "bad", words[0])
    assert refused.status
    assert why in refused.err.lower()
