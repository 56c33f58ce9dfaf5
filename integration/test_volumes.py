"""Custom volumes with the stock client: made, shared, copied and moved between pools and members."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try
from integration.instances import online
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    first = cluster.members[0]
    for row in lxc_json(first, "list"):
        lxc(first, "delete", "--force", row["name"])
    for pool in lxc_json(first, "storage", "list"):
        for row in first.ask("GET", f"/1.0/storage-pools/{pool['name']}/volumes/custom?recursion=1"):
            if "/" not in row["name"]:  # snapshots go with their volume
                lxc(
                    first,
                    "storage",
                    "volume",
                    "delete",
                    pool["name"],
                    row["name"],
                    "--target",
                    row["location"],
                )


def custom(member: Member, pool: str) -> dict[str, str]:
    """Where its custom volumes are, by name."""
    rows = lxc_json(member, "storage", "volume", "list", pool)
    return {row["name"]: row["location"] for row in rows if row["type"] == "custom"}


def inside(member: Member, instance: str, script: str) -> str:
    return lxc(member, "exec", instance, "--", "sh", "-c", script).strip()


def test_instances_of_its_member_share_a_volume_and_find_their_owners_in_it(cluster: Cluster) -> None:
    first, second, third = cluster.members
    lxc(first, "storage", "volume", "create", "default", "data", "--target", second.name)
    disk = ("disk", "pool=default", "source=data", "path=/data")
    lxc(third, "init", "busybox", "c1")
    home = first.ask("GET", "/1.0/instances/c1")["location"]
    if home != second.name:
        refused = lxc_try(third, "config", "device", "add", "c1", "data", *disk)
        assert f"Storage volume not found on member {home}" in refused.err
    lxc(third, "delete", "c1")
    lxc(third, "launch", "busybox", "c1", "--target", second.name)
    lxc(third, "config", "device", "add", "c1", "data", *disk)  # while it runs
    inside(first, "c1", "echo hello >/data/file && mkdir /data/rootfs && chown 33:44 /data/file")
    lxc(first, "init", "busybox", "c2", "--target", second.name)
    lxc(first, "storage", "volume", "attach", "default", "data", "c2", "/data")
    lxc(third, "start", "c2")
    assert inside(first, "c2", "cat /data/file; stat -c %u:%g /data/file") == "hello\n33:44"
    assert "still in use" in lxc_try(first, "storage", "volume", "delete", "default", "data").err
    assert "running instances" in lxc_try(first, "storage", "volume", "rename", "default", "data", "x").err
    lxc(first, "storage", "volume", "detach", "default", "data", "c1")
    assert inside(third, "c1", "test -e /data/file || echo gone") == "gone"
    lxc(first, "stop", "--force", "c2")
    lxc(third, "storage", "volume", "rename", "default", "data", "kept")
    lxc(first, "start", "c2")
    assert inside(third, "c2", "cat /data/file") == "hello"


def test_a_disk_may_be_where_only_the_hosts_root_can_go(cluster: Cluster) -> None:
    first = cluster.members[0]
    closed = cluster.state / "closed"
    closed.mkdir(mode=0o700)
    (closed / "folder").mkdir(mode=0o755)
    (closed / "folder" / "file").write_text("hello")
    lxc(first, "init", "busybox", "c1", "--target", first.name)
    for name, more in (("a", "shift=true"), ("b", "readonly=true")):
        lxc(
            first,
            "config",
            "device",
            "add",
            "c1",
            name,
            "disk",
            f"source={closed}/folder",
            f"path=/{name}",
            more,
        )
    lxc(first, "config", "device", "add", "c1", "c", "disk", f"source={closed}/folder/file", "path=/c")
    lxc(first, "start", "c1")
    assert inside(first, "c1", "cat /a/file /b/file /c; stat -c %u /a/file") == "hellohellohello0"
    first.kill()
    first.start()
    lxc(first, "restart", "--force", "c1")
    assert inside(first, "c1", "cat /a/file") == "hello"
    lxc(first, "stop", "--force", "c1")
    assert not list((first.folder / "devices").iterdir())
    assert (closed / "folder" / "file").read_text() == "hello"


def test_an_instance_is_put_where_its_volumes_are(cluster: Cluster) -> None:
    first, second, third = cluster.members
    lxc(first, "storage", "volume", "create", "default", "set", "--target", third.name)
    body = {
        "name": "c1",
        "source": {"type": "image", "alias": "busybox"},
        "devices": {"d": {"type": "disk", "pool": "default", "source": "set", "path": "/set"}},
    }
    first.ask("POST", "/1.0/instances", body)
    assert first.ask("GET", "/1.0/instances/c1")["location"] == third.name
    with pytest.raises(Exception, match='has no storage volume "set" in pool "default"'):
        first.ask("POST", f"/1.0/instances?target={second.name}", body | {"name": "c2"})


def test_a_copy_goes_to_another_pool_on_another_member_with_its_limit(cluster: Cluster) -> None:
    first, second, third = cluster.members
    for member in cluster.members:
        lxc(first, "storage", "create", "quota", "btrfs", "size=300MiB", "--target", member.name)
    lxc(first, "storage", "create", "quota", "btrfs")
    lxc(first, "storage", "volume", "create", "default", "data", "--target", second.name)
    lxc(first, "launch", "busybox", "c1", "--target", second.name)
    lxc(first, "storage", "volume", "attach", "default", "data", "c1", "/data")
    inside(first, "c1", "mkdir /data/rootfs && echo deep >/data/rootfs/file && chown 33:44 /data/rootfs/file")
    lxc(third, "storage", "volume", "set", "default", "data", "size", "16MiB")
    lxc(third, "storage", "volume", "copy", "default/data", "quota/copied", "--target", second.name,
        "--destination-target", third.name)  # fmt: skip
    lxc(first, "launch", "busybox", "c2", "--target", third.name)
    lxc(second, "storage", "volume", "attach", "quota", "copied", "c2", "/data")
    assert inside(first, "c2", "cat /data/rootfs/file; stat -c %u:%g /data/rootfs/file") == "deep\n33:44"
    with pytest.raises(Failed):
        inside(first, "c2", "dd if=/dev/zero of=/data/big bs=1M count=32")
    lxc(first, "storage", "volume", "set", "quota", "copied", "size", "64MiB")
    inside(first, "c2", "dd if=/dev/zero of=/data/big bs=1M count=32")
    lxc(first, "delete", "--force", "c2")
    lxc(first, "storage", "volume", "move", "quota/copied", "default/moved", "--target", third.name,
        "--destination-target", third.name)  # fmt: skip
    places = {"data": second.name, "moved": third.name}
    eventually(lambda: (custom(second, "default"), custom(second, "quota")) == (places, {}), within=20)
    lxc(first, "delete", "--force", "c1")
    lxc(first, "storage", "delete", "quota")


def test_a_volume_is_brought_back_to_a_snapshot_and_copied_with_all(cluster: Cluster) -> None:
    first, second, third = cluster.members
    volume = ("storage", "volume")
    lxc(first, *volume, "create", "default", "data", "--target", second.name)
    lxc(first, "launch", "busybox", "c1", "--target", second.name)
    lxc(first, *volume, "attach", "default", "data", "c1", "/data")
    inside(third, "c1", "echo one >/data/file")
    lxc(third, *volume, "snapshot", "default", "data")
    inside(third, "c1", "echo two >/data/file")
    lxc(first, *volume, "snapshot", "default", "data", "later")
    inside(third, "c1", "echo three >/data/file")
    assert "exists" in lxc_try(third, *volume, "snapshot", "default", "data", "later").err
    assert "running instances" in lxc_try(third, *volume, "restore", "default", "data", "snap0").err
    lxc(first, "stop", "--force", "c1")
    lxc(third, *volume, "restore", "default", "data", "snap0")
    lxc(first, "start", "c1")
    assert inside(third, "c1", "cat /data/file") == "one"
    lxc(third, *volume, "rename", "default", "data/later", "data/last")
    rows = lxc_json(third, *volume, "list", "default")
    assert {row["name"] for row in rows if row["type"].startswith("custom")} == {
        "data",
        "data/snap0",
        "data/last",
    }
    lxc(first, *volume, "copy", "default/data", "default/whole", "--target", second.name,
        "--destination-target", third.name)  # fmt: skip
    lxc(third, *volume, "copy", "default/data/last", "default/part")
    assert [row["name"] for row in snapshots(first, "whole")] == ["whole/snap0", "whole/last"]
    lxc(first, *volume, "restore", "default", "whole", "last")
    lxc(first, "launch", "busybox", "c2", "--target", third.name)
    lxc(first, *volume, "attach", "default", "whole", "c2", "/data")
    assert inside(second, "c2", "cat /data/file") == "two"
    lxc(first, *volume, "delete", "default", "data/snap0")
    eventually(lambda: [row["name"] for row in snapshots(third, "data")] == ["data/last"], within=20)
    lxc(first, *volume, "delete", "default", "part", "--target", second.name)


def snapshots(member: Member, volume: str) -> list[dict[str, str]]:
    rows = member.ask("GET", f"/1.0/storage-pools/default/volumes/custom/{volume}/snapshots?recursion=1")
    assert isinstance(rows, list)
    return rows


def test_a_snapshot_that_a_dying_member_was_making_is_gone_when_it_is_back(cluster: Cluster) -> None:
    first, second, third = cluster.members
    snapshot = ("storage", "volume", "snapshot", "default", "data", "cut")
    lxc(first, "storage", "volume", "create", "default", "data", "--target", second.name)
    second.kill()
    second.start(LXDPY_FAILPOINTS="volume-snapshot.created=crash")
    eventually(lambda: online(first, second), within=15)
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(lxc_try, first, *snapshot, timeout=60)
        eventually(lambda: second.pid() is None, within=20)
        second.start()
        # Whether its end is waited for already, or its beginning is not answered yet.
        assert "Member n2 " in lost.result().err, "who waits through another member is told"
    eventually(lambda: lxc_try(third, *snapshot).status == 0, within=20)
    eventually(lambda: [row["name"] for row in snapshots(first, "data")] == ["data/cut"], within=20)


def test_a_volume_that_a_dying_member_was_making_is_gone_when_it_is_back(cluster: Cluster) -> None:
    first, second, _ = cluster.members
    lxc(first, "storage", "volume", "create", "default", "data", "--target", second.name)
    lxc(first, "storage", "volume", "create", "default", "other", "--target", second.name)
    second.kill()
    refused = lxc_try(first, "storage", "volume", "delete", "default", "data")
    assert second.name in refused.err
    second.start()
    eventually(lambda: lxc(first, "storage", "volume", "delete", "default", "data") and None, within=20)
    assert "other" in lxc(second, "storage", "volume", "list", "default")


def test_a_volume_is_exported_from_one_member_and_imported_on_another(
    cluster: Cluster, tmp_path: Path
) -> None:
    first, second, third = cluster.members
    volume = ("storage", "volume")
    lxc(first, *volume, "create", "default", "data", "--target", second.name, "user.a=b")
    lxc(first, "launch", "busybox", "c1", "--target", second.name)
    lxc(first, *volume, "attach", "default", "data", "c1", "/data")
    inside(first, "c1", "echo hello >/data/file && chown 33:44 /data/file")
    lxc(first, *volume, "snapshot", "default", "data", "before")
    lxc(first, *volume, "export", "default", "data", str(tmp_path / "b"), "--compression=squashfs")
    lxc(first, *volume, "import", "default", str(tmp_path / "b"), "again", "--target", third.name)
    shown = first.ask("GET", "/1.0/storage-pools/default/volumes/custom/again")
    assert (shown["location"], shown["config"]) == (third.name, {"user.a": "b"})
    lxc(first, "launch", "busybox", "c2", "--target", third.name)
    lxc(first, *volume, "attach", "default", "again", "c2", "/data")
    assert inside(first, "c2", "cat /data/file; stat -c %u:%g /data/file") == "hello\n33:44"
    assert "again/before" in lxc(first, *volume, "list", "default")
    targets = ("--target", second.name, "--destination-target", third.name)
    refreshed = ("copy", "default/data", "default/again", "--refresh", *targets)
    assert "running instances" in lxc_try(first, *volume, *refreshed).err
    lxc(first, "stop", "--force", "c2")
    inside(first, "c1", "echo more >/data/file")
    lxc(first, *volume, "snapshot", "default", "data", "after")
    lxc(first, *volume, *refreshed)
    lxc(first, "start", "c2")
    assert inside(first, "c2", "cat /data/file; stat -c %u:%g /data/file") == "more\n33:44"
    assert "again/after" in lxc(first, *volume, "list", "default")
