"""Copies and moves by the stock client: between pools, members and projects; whole, or not at all."""

from collections.abc import Iterator

import pytest

from integration.harness import eventually, lxc, lxc_json
from integration.instances import clear, crash, failure, instance, names_in, online, pool_of, sh
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
# What a copy must not lose: owners, modes, links, special files, attributes, and what is gone of the image.
MARKS = """
cd /root; echo {0} >f; chown 5:6 f; chmod 4751 f; ln f twin; ln -s /etc/passwd link; mkfifo pipe
mkdir -p d/e; chmod 1777 d; rm -rf /etc/group"""
SHOWN = (
    "cd /root; cat f; find . | sort | xargs stat -c '%n %f %u:%g'; [ f -ef twin ] && echo same; ls /etc/group"
)


@pytest.fixture
def members(pools: Cluster) -> Iterator[list[Member]]:
    for member in pools.members:
        member.start()
    yield pools.members
    for member in pools.members:
        member.start()
    clear(pools.members[0])
    eventually(lambda: leftovers(pools.members) == [], within=20)


def leftovers(members: list[Member]) -> list[str]:
    """All that pools still hold of instances."""
    folders = [
        pool_of(member, pool) / folder
        for member in members
        for pool in ("default", "bt")
        for folder in ("containers", "containers-snapshots")
    ]
    return [f"{folder}/{name}" for folder in folders for name in names_in(folder)]


def marked(member: Member, owner: Member, pool: str) -> None:
    """A running instance c1 with a snapshot s0 before what it is now."""
    lxc(member, "launch", "busybox", "c1", "--target", owner.name, "-s", pool, "-c", "user.x=1")
    sh(member, "c1", MARKS.format("one"))
    lxc(member, "snapshot", "c1", "s0")
    sh(member, "c1", "echo two >/root/f; chmod 4751 /root/f")


def started(member: Member, name: str) -> str:
    lxc(member, "start", name)
    return sh(member, name, SHOWN)


@pytest.mark.parametrize("pool", ["default", "bt"])
def test_copies(members: list[Member], pool: str) -> None:
    first, second, third = members
    marked(first, second, pool)
    two = sh(first, "c1", SHOWN)
    one = two.replace("two", "one")
    assert "two" in two
    assert "same" in two
    other = {"default": "bt", "bt": "default"}[pool]
    lxc(first, "copy", "c1", "near")
    lxc(first, "copy", "c1", "far", "--target", third.name)
    lxc(first, "copy", "c1/s0", "old", "--target", first.name, "-c", "user.x=2", "-c", "user.y=3")
    lxc(first, "copy", "c1", "elsewhere", "-s", other, "--instance-only")
    eventually(lambda: len(lxc_json(third, "list")) == 5, within=20)
    rows = {row["name"]: row for row in lxc_json(third, "list")}
    assert {name: row["location"] for name, row in rows.items()} == {
        "c1": "n2", "near": "n2", "far": "n3", "old": "n1", "elsewhere": "n2"
    }  # fmt: skip
    snapshots = {name: len(row["snapshots"] or []) for name, row in rows.items()}
    assert snapshots == {"c1": 1, "near": 1, "far": 1, "old": 0, "elsewhere": 0}
    assert (rows["old"]["config"]["user.x"], rows["old"]["config"]["user.y"]) == ("2", "3")
    assert rows["far"]["config"]["user.x"] == "1"
    notes = ("volatile.uuid", "volatile.eth0.hwaddr")
    assert all(rows["far"]["config"].get(note) != rows["c1"]["config"][note] for note in notes)
    lxc(first, "delete", "--force", "c1")
    shown = {name: started(first, name) for name in ("near", "far", "old", "elsewhere")}
    assert shown == {"near": two, "far": two, "old": one, "elsewhere": two}
    for name in ("near", "far"):
        lxc(first, "restore", name, "s0")
        assert sh(first, name, SHOWN) == one


@pytest.mark.parametrize("pool", ["default", "bt"])
def test_moves(members: list[Member], pool: str) -> None:
    first, second, third = members
    marked(first, second, pool)
    two = sh(first, "c1", SHOWN)
    live = "Unable to perform container live migration. CRIU isn't installed on the source server"
    assert failure(first, "move", "c1", "--target", "n3").endswith(live)
    assert failure(first, "move", "c1", "--target", "n3", "--stateless").endswith("Instance is running")
    lxc(first, "stop", "c1", "--force")
    assert failure(first, "move", "c1", "--target", "n9").endswith("n9")
    lxc(first, "move", "c1", "--target", "n3")
    assert (instance(first, "c1")["location"], started(third, "c1")) == ("n3", two)
    eventually(lambda: names_in(pool_of(second, pool) / "containers") == [], within=10)
    lxc(first, "stop", "c1", "--force")
    lxc(second, "move", "c1", "c2", "--target", "n1")
    assert instance(second, "c2")["location"] == "n1"
    other = {"default": "bt", "bt": "default"}[pool]
    lxc(second, "move", "c2", "-s", other)
    row = instance(second, "c2")
    assert row["expanded_devices"]["root"]["pool"] == other
    eventually(lambda: names_in(pool_of(first, pool) / "containers") == [], within=10)
    assert started(second, "c2") == two
    lxc(second, "restore", "c2", "s0")
    assert sh(second, "c2", SHOWN) == two.replace("two", "one")


def test_a_copy_is_refreshed(members: list[Member]) -> None:
    first, second, third = members
    marked(first, second, "default")
    lxc(first, "copy", "c1", "c2", "--target", third.name)
    sh(first, "c1", "echo three >/root/f")
    lxc(first, "snapshot", "c1", "s1")
    lxc(first, "delete", "c1/s0")
    sh(first, "c1", "echo four >/root/f")
    lxc(first, "snapshot", "c2", "mine")
    lxc(first, "copy", "c1", "c2", "--refresh")
    assert [s["name"] for s in instance(first, "c2?recursion=1")["snapshots"]] == ["s1"]
    lxc(first, "start", "c2")
    assert sh(first, "c2", "cat /root/f") == "four\n"
    assert "Instance is running" in failure(first, "copy", "c1", "c2", "--refresh")
    lxc(first, "restore", "c2", "s1")
    assert sh(first, "c2", "cat /root/f") == "three\n"


def test_other_projects(members: list[Member]) -> None:
    first, second, third = members
    marked(first, second, "default")
    lxc(first, "project", "create", "p1", "-c", "features.images=false", "-c", "features.profiles=false")
    try:
        lxc(first, "copy", "c1", "c1", "--target-project", "p1", "--target", third.name)
        assert instance(first, "c1?project=p1")["location"] == "n3"
        lxc(first, "stop", "c1", "--force")
        said = failure(first, "move", "c1", "--target-project", "p1")
        assert said.endswith('Name "c1" already in use')
        lxc(first, "move", "c1", "c2", "--target-project", "p1")
        lxc(first, "start", "c2", "--project", "p1")
        assert lxc(first, "exec", "c2", "--project", "p1", "--", "cat", "/root/f") == "two\n"
        assert lxc_json(first, "list") == []
        lxc(first, "restore", "c2", "s0", "--project", "p1")
    finally:
        lxc(
            first,
            "delete",
            "--force",
            "--project",
            "p1",
            *[r["name"] for r in lxc_json(first, "list", "--project", "p1")],
        )
        lxc(first, "project", "delete", "p1")


def test_what_cannot_be_copied_or_moved_stays(members: list[Member]) -> None:
    first, second, third = members
    lxc(first, "init", "busybox", "c1", "--target", second.name)
    lxc(first, "init", "busybox", "c2", "--target", third.name)
    assert failure(first, "copy", "c1", "c2").endswith('Instance "c2" already exists')
    assert failure(first, "copy", "c1/s9", "c3").endswith("Instance snapshot not found")
    assert failure(first, "move", "c1", "c2", "--target", "n1").endswith("already in use")
    assert failure(first, "move", "c1", "--target", "n2").endswith(
        "Requested target server is the same as current server"
    )
    assert failure(first, "move", "c1", "-s", "default").endswith(
        "Requested storage pool is the same as current pool"
    )
    assert failure(first, "move", "c1", "-s", "nope").endswith("not found: nope")
    assert instance(first, "c1")["location"] == "n2"
    lxc(first, "delete", "c1", "c2")


@pytest.mark.parametrize("point", ["move.begun", "instance.built"])
def test_the_source_dies(members: list[Member], point: str) -> None:
    """A move ends on one side or the other, and a copy is there whole or not at all."""
    first, second, _ = members
    marked(first, second, "default")
    lxc(first, "stop", "c1", "--force")
    words = (
        ("move", "c1", "--target", "n3") if point == "move.begun" else ("copy", "c1", "c2", "--target", "n2")
    )
    crash(second, point, *words, at=second)
    eventually(lambda: settled(first), within=40)
    row = instance(first, "c1")
    assert row["location"] in ("n2", "n3")
    for name in [row["name"] for row in lxc_json(first, "list")]:
        assert "two" in started(first, name)


@pytest.mark.parametrize("point", ["move.fetched", "instance.built"])
def test_the_target_dies(members: list[Member], point: str) -> None:
    first, second, third = members
    marked(first, second, "default")
    lxc(first, "stop", "c1", "--force")
    words = ("move", "c1") if point == "move.fetched" else ("copy", "c1", "c2")
    crash(third, point, *words, "--target", "n3", at=first)
    eventually(lambda: settled(first), within=40)
    for name in [row["name"] for row in lxc_json(first, "list")]:
        assert "two" in started(first, name)


def settled(member: Member) -> bool:
    """Nothing is being made or moved any more: that could not be changed."""
    for row in member.ask("GET", "/1.0/instances?recursion=1"):
        lxc(member, "config", "set", row["name"], "user.z=1")
    return True


def test_a_target_that_is_lost_lets_the_instance_go(members: list[Member]) -> None:
    """And removes what it has of it once it is back."""
    first, second, third = members
    marked(first, second, "default")
    lxc(first, "stop", "c1", "--force")
    third.stop()
    third.start(LXDPY_FAILPOINTS="move.fetched=crash")
    eventually(lambda: online(first, third), within=15)
    assert "offline" in failure(first, "move", "c1", "--target", "n3")
    assert instance(first, "c1")["location"] == "n2"
    assert "two" in started(first, "c1")
    third.start()
    eventually(lambda: names_in(pool_of(third, "default") / "containers") == [], within=20)


def test_a_full_pool_takes_no_copy(members: list[Member]) -> None:
    first, second, third = members
    lxc(first, "launch", "busybox", "c1", "--target", second.name)
    sh(first, "c1", "dd if=/dev/urandom of=/root/big bs=1M count=300")
    full = "No space left to fill a volume"
    assert failure(first, "copy", "c1", "c2", "--target", "n3", "-s", "bt").endswith(full)
    lxc(first, "stop", "c1", "--force")
    assert failure(first, "move", "c1", "-s", "bt").endswith(full)
    assert names_in(pool_of(third, "bt") / "containers") == []
    lxc(first, "start", "c1")
