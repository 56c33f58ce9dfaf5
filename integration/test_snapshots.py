"""Snapshots by the stock client, through a member that does not own the instance; and after crashes."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from integration.harness import eventually, lxc
from integration.instances import clear, crash, failure, instance, names_in, online, pool_of, sh
from lxdpy.dev.faults.scene import CLOCK
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
def members(pools: Cluster) -> Iterator[tuple[Member, Member]]:
    """The owner of what a test makes, and another."""
    owner, other = pools.members[1], pools.members[2]
    owner.start()
    yield owner, other
    owner.start()
    clear(other)


def names(member: Member, name: str = "c1") -> list[str]:
    rows = member.ask("GET", f"/1.0/instances/{name}/snapshots?recursion=1")
    return [row["name"] for row in rows]


def on_disk(member: Member, pool: str, name: str = "c1") -> int:
    """How many snapshots there are, finished or not."""
    return len(names_in(pool_of(member, pool) / "containers-snapshots" / name))


@pytest.mark.parametrize("pool", ["default", "bt"])
def test_the_commands_of_snapshots(members: tuple[Member, Member], pool: str) -> None:
    owner, other = members
    lxc(other, "launch", "busybox", "c1", "--target", owner.name, "-s", pool, "-c", "snapshots.expiry=1d")
    sh(other, "c1", "echo one >/root/f")
    lxc(other, "snapshot", "c1", "s0")
    sh(other, "c1", "echo two >/root/f; rm /etc/passwd")
    lxc(other, "config", "set", "c1", "user.x=1")
    lxc(other, "snapshot", "c1")
    lxc(other, "snapshot", "c1", "--no-expiry")
    assert failure(other, "snapshot", "c1", "s0") == 'Snapshot "c1/s0" already exists'
    wrong = "Invalid instance snapshot name: Cannot contain space or / characters"
    assert failure(other, "snapshot", "c1", "a b") == wrong
    said = "Unable to create a stateful snapshot. CRIU isn't installed"
    assert failure(other, "snapshot", "c1", "x", "--stateful") == said
    assert names(other) == ["s0", "snap0", "snap1"]
    rows = instance(other, "c1?recursion=1")["snapshots"]
    assert [row["expires_at"].startswith("0001") for row in rows] == [False, False, True]

    restores(other)
    renames_and_edits(other, lambda: on_disk(owner, pool))
    lxc(other, "stop", "c1", "--force")
    lxc(other, "rename", "c1", "c2")
    assert names(other, "c2") == ["s0", "snap0"]
    lxc(other, "restore", "c2", "s0")
    lxc(other, "delete", "c2")
    assert [*pool_of(owner, pool).glob("containers*/c*")] == []


def restores(other: Member) -> None:
    """While it runs, and while it does not."""
    lxc(other, "restore", "c1", "s0")
    assert sh(other, "c1", "cat /root/f; ls /etc/passwd") == "one\n/etc/passwd\n"
    assert lxc(other, "config", "get", "c1", "user.x") == "\n"
    assert failure(other, "restore", "c1", "s9") == "Snapshot c1/s9 does not exist"
    lxc(other, "stop", "c1", "--force")
    lxc(other, "restore", "c1", "snap0")
    assert instance(other, "c1")["status"] == "Stopped"
    lxc(other, "start", "c1")
    assert sh(other, "c1", "cat /root/f") == "two\n"


def renames_and_edits(other: Member, on_disk: Callable[[], int]) -> None:
    lxc(other, "move", "c1/snap1", "c1/s1")
    assert names(other) == ["s0", "snap0", "s1"]
    assert failure(other, "move", "c1/s1", "c1/s0") == "Name 'c1/s0' already in use"
    shown = lxc(other, "config", "show", "c1/s1")
    lxc(other, "config", "edit", "c1/s1", stdin="expires_at: 2099-01-02T03:04:05Z\n")
    assert shown.splitlines()[0] == "expires_at: 0001-01-01T00:00:00Z"
    assert lxc(other, "config", "show", "c1/s1").startswith("expires_at: 2099-01-02T03:04:05Z")
    lxc(other, "delete", "c1/s1")
    assert failure(other, "delete", "c1/s1").endswith("Instance snapshot not found")
    assert (names(other), on_disk()) == (["s0", "snap0"], 2)
    assert "| 2         |" in lxc(other, "list", "-c", "nS")


def test_an_expiry_counts_from_the_snapshot_on(members: tuple[Member, Member]) -> None:
    owner, other = members
    lxc(other, "init", "busybox", "c1", "--target", owner.name, "-c", "snapshots.expiry=2d 3H")
    lxc(other, "snapshot", "c1", "s0")
    row = eventually(lambda: instance(other, "c1/snapshots/s0"), within=5)
    made, ends = (datetime.fromisoformat(row[key][:19]) for key in ("created_at", "expires_at"))
    assert ends - made == timedelta(days=2, hours=3)


@pytest.mark.parametrize("point", ["snapshot.created", "snapshot.delete"])
def test_a_snapshot_cut_short_by_a_crash_is_not_there(members: tuple[Member, Member], point: str) -> None:
    owner, other = members
    lxc(other, "launch", "busybox", "c1", "--target", owner.name)
    lxc(other, "snapshot", "c1", "s0")
    words = ("delete", "c1/s0") if "delete" in point else ("snapshot", "c1", "s1")
    kept = [] if "delete" in point else ["s0"]
    crash(owner, point, *words)
    eventually(lambda: names(other) == kept, within=20)
    eventually(lambda: on_disk(owner, "default") == len(kept), within=20)
    assert sh(other, "c1", "echo alive") == "alive\n"
    lxc(other, "snapshot", "c1", "s1")
    assert names(other) == [*kept, "s1"]


def test_a_container_that_was_held_still_goes_on_after_a_crash(members: tuple[Member, Member]) -> None:
    owner, other = members
    lxc(other, "launch", "busybox", "c1", "--target", owner.name)
    crash(owner, "instance.quiet", "snapshot", "c1", "s0")
    eventually(lambda: sh(other, "c1", "echo alive") == "alive\n", within=20)
    eventually(lambda: instance(other, "c1")["status"] == "Running", within=20)
    eventually(lambda: not [*(owner.folder / "run").glob("*.quiet")], within=20)


@pytest.mark.parametrize("point", ["instance.restore", "instance.restored"])
def test_a_restore_is_finished_after_a_crash(members: tuple[Member, Member], point: str) -> None:
    owner, other = members
    lxc(other, "launch", "busybox", "c1", "--target", owner.name, "--ephemeral")
    sh(other, "c1", "echo one >/root/f")
    lxc(other, "snapshot", "c1", "s0")
    sh(other, "c1", "echo two >/root/f")
    crash(owner, point, "restore", "c1", "s0")
    eventually(lambda: sh(other, "c1", "cat /root/f") == "one\n", within=20)
    eventually(lambda: "volatile.restoring" not in instance(other, "c1")["config"], within=20)


def test_a_full_disk_leaves_no_snapshot(members: tuple[Member, Member]) -> None:
    owner, other = members
    lxc(other, "launch", "busybox", "c1", "--target", owner.name)
    owner.stop()
    owner.start(LXDPY_FAILPOINTS="snapshot.created=error:No space left to copy a volume")
    eventually(lambda: online(other, owner), within=15)
    assert failure(other, "snapshot", "c1", "s0") == "No space left to copy a volume"
    assert (names(other), on_disk(owner, "default")) == ([], 0)


def test_scheduled_snapshots_come_once_and_go(members: tuple[Member, Member]) -> None:
    """Over a restart and a clock that jumps back; of an instance and of a volume."""
    owner, other = members
    owner.stop()
    clock = Clock(owner)
    owner.start(PYTHONPATH=str(CLOCK))
    try:
        keys = ("snapshots.schedule=@hourly", "snapshots.pattern=auto%d", "snapshots.expiry=3H")
        words = [word for key in keys for word in ("-c", key)]
        eventually(lambda: lxc(other, "launch", "busybox", "c1", "--target", owner.name, *words), within=30)
        lxc(other, "storage", "volume", "create", "default", "v1", *keys, "--target", owner.name)
        lxc(other, "snapshot", "c1", "mine", "--no-expiry")
        clock.jump(3600)
        eventually(lambda: "auto0" in names(other), within=30)
        owner.stop()
        clock.jump(-1800)
        owner.start(PYTHONPATH=str(CLOCK))
        clock.jump(1800 + 3600)
        eventually(lambda: "auto1" in names(other), within=30)
        assert len(names(other)) - 1 <= clock.hours
        path = f"/1.0/storage-pools/default/volumes/custom/v1/snapshots?recursion=1&target={owner.name}"
        eventually(lambda: "v1/auto1" in [row["name"] for row in other.ask("GET", path)], within=30)
        clock.jump(4 * 3600)
        eventually(lambda: "auto0" not in names(other) and "mine" in names(other), within=30)
        lxc(other, "storage", "volume", "delete", "default", "v1", "--target", owner.name)
    finally:
        owner.stop()
        clock.jump(-clock.seconds)


class Clock:
    """How far the member's wall clock is off."""

    def __init__(self, member: Member) -> None:
        self._file = member.folder.with_suffix(".clock")
        self._began = self._latest = time.time() // 3600
        self.seconds = 0.0
        self.jump(0)

    def jump(self, by: float) -> None:
        self.seconds += by
        self._latest = max(self._latest, (time.time() + self.seconds) // 3600)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{self.seconds}")
        fresh.rename(self._file)

    @property
    def hours(self) -> float:
        """That have struck so far."""
        return self._latest - self._began
