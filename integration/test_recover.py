"""All databases are lost, the storage pools are not: `lxdpy recover` finds what is in them."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from integration.harness import eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox
from lxdpy.dev.members import Member
from lxdpy.dev.netns import Failed, run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
FIELDS = ("created_at", "devices", "profiles", "description", "name", "architecture")


@pytest.fixture(scope="module")
def member() -> Iterator[Member]:
    with running(members=1, gpus=1, joined=False) as made:
        yield made.members[0]


def furnish(member: Member) -> None:
    """As a user does it, who has lost all."""
    pools = [row["name"] for row in member.ask("GET", "/1.0/storage-pools?recursion=1")]
    if "default" not in pools:
        lxc(member, "storage", "create", "default", "dir")
    root = {"type": "disk", "path": "/", "pool": "default"}
    member.ask("PUT", "/1.0/profiles/default", {"devices": {"root": root}})


def lose(member: Member) -> None:
    """The disk of the member breaks; those of its pools do not."""
    member.lxdpy("shutdown")
    eventually(lambda: member.pid() is None, within=30)
    for path in member.folder.iterdir():
        if path.name not in ("storage-pools", "disks"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    member.start()
    furnish(member)


def sh(member: Member, name: str, script: str) -> str:
    return lxc(member, "exec", name, "--", "sh", "-c", script).strip()


def fill(member: Member, source: Path) -> None:
    """Two instances with a snapshot each, and volumes, in three pools; one is in the folder `source`."""
    busybox(member)
    furnish(member)
    lxc(member, "storage", "create", "fast", "btrfs", "size=256MiB")
    lxc(member, "storage", "create", "far", "dir", f"source={source}")
    lxc(member, "storage", "volume", "create", "far", "kept")
    lxc(member, "profile", "create", "own")
    lxc(member, "storage", "volume", "create", "default", "data")
    lxc(member, "launch", "busybox", "c1", "-p", "default", "-p", "own", "-c", "limits.gpu=1")
    lxc(member, "launch", "busybox", "c2", "-s", "fast")
    lxc(member, "config", "device", "add", "c1", "data", "disk", "pool=default", "source=data", "path=/data")
    sh(member, "c1", "echo of all >/data/file")
    for name in ("c1", "c2"):
        sh(member, name, "echo then >/root/file")
        lxc(member, "snapshot", name, "s0")
        sh(member, name, "echo now >/root/file")
    lxc(member, "storage", "volume", "snapshot", "default", "data", "v0")


def recorded(member: Member) -> set[str]:
    """What records tell, with the snapshots. The pools are mounted for the daemon only."""
    script = "for f in storage-pools/*/containers/*/backup.yaml storage-pools/*/custom-records/*.yaml; do "
    script += "echo ---; cat $f; done"
    text = run(*member.net.enter(member.name, "sh", "-c", f"cd {member.folder} && {script}"))
    found = set()
    for told in filter(None, yaml.safe_load_all(text)):
        name = told["container" if "container" in told else "volume"]["name"]
        found.add(" ".join([f"{name}:", *told["lxdpy"]["snapshots"]]))
    return found


def test_instances_and_volumes_are_found_and_run_again(member: Member) -> None:
    source = member.folder.parent / "disk"
    source.mkdir()
    fill(member, source)
    eventually(lambda: recorded(member) >= {"c1: s0", "c2: s0", "data: v0", "kept:"}, within=30)
    record = member.folder / "storage-pools/default/containers/c1/backup.yaml"
    assert record.stat().st_mode & 0o777 == 0o600
    assert "backup.yaml" not in sh(member, "c1", "find / -xdev -name 'backup.yaml' 2>/dev/null; ls -a / /..")
    before = lxc_json(member, "list", "c1")[0]

    lose(member)
    pools = ("--pool", "name=fast,driver=btrfs", "--pool", f"name=far,driver=dir,source={source}")
    with pytest.raises(Failed, match='Profile "own" in project "default"'):
        member.lxdpy("recover", "--yes", *pools)
    assert lxc_json(member, "list") == []
    assert "lxdpy recover" in lxc_try(member, "init", "--empty", "c1").err
    lxc(member, "profile", "create", "own")
    shown = member.lxdpy("recover", stdin=f"y\nfast\nbtrfs\n\n\ny\nfar\ndir\n{source}\n\nn\ny\n")
    assert all(name in shown for name in ("c1", "c2", "data", "kept"))
    lxc(member, "storage", "volume", "delete", "far", "kept")
    after = lxc_json(member, "list", "c1")[0]
    assert [after[field] for field in FIELDS] == [before[field] for field in FIELDS]
    assert (after["status"], [one["name"] for one in after["snapshots"]]) == ("Stopped", ["s0"])
    for name, content in (("c1", "now"), ("c2", "now"), ("c1", "then"), ("c2", "then")):
        if content == "then":
            lxc(member, "stop", "--force", name)
            lxc(member, "restore", name, "s0")
        lxc(member, "start", name)
        assert sh(member, name, "cat /root/file") == content
    assert sh(member, "c1", "cat /data/file") == "of all"
    assert "s0" in lxc(member, "info", "c2")
    lxc(member, "delete", "--force", "c1", "c2")
    lxc(member, "storage", "volume", "delete", "default", "data")


def test_what_still_runs_is_left_alone(member: Member) -> None:
    busybox(member)
    lxc(member, "launch", "busybox", "c3")
    record = member.folder / "storage-pools/default/containers/c3/backup.yaml"
    eventually(record.exists, within=30)
    init = int(lxc_json(member, "list", "c3")[0]["state"]["pid"])
    member.stop()
    shutil.rmtree(member.folder / "cluster")
    member.start()
    furnish(member)
    with pytest.raises(Failed, match='Instance "c3" in project "default" runs'):
        member.lxdpy("recover", "--yes")
    assert lxc_json(member, "list") == []
    os.kill(init, signal.SIGKILL)
    eventually(lambda: member.lxdpy("recover", "--yes") is not None, within=30)
    lxc(member, "start", "c3")
    assert sh(member, "c3", "echo alive") == "alive"
