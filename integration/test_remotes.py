"""Instances between servers that are not of one cluster, by the stock client: whole, or not at all.

A is a cluster of n1 and n2, spoken to through n1; B is n3 alone. The client calls from n1's network.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.harness import LXC, eventually, lxc
from integration.instances import busybox, names_in, pool_of, sh
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed, run

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
# What must not be lost: owners, modes, links, special files, attributes, and what is gone of the image.
MARKS = """
cd /root; echo {0} >f; chown 5:6 f; chmod 4751 f; ln f twin; ln -s /etc/passwd link; mkfifo pipe
mkdir -p d/e; chmod 1777 d; rm -rf /etc/group"""
SHOWN = (
    "cd /root; cat f; find . | sort | xargs stat -c '%n %f %u:%g'; [ f -ef twin ] && echo same; ls /etc/group"
)


class Remotes:
    """The client with A and B as remotes."""

    def __init__(self, cluster: Cluster) -> None:
        self.owner, self.home, self.far = cluster.members[1], cluster.members[0], cluster.members[2]
        self._members = cluster.members
        self._environment = self.home.environment | {"LXD_CONF": str(cluster.state / "remotes")}

    def lxc(self, *words: str) -> str:
        command = self.home.net.enter(self.home.name, LXC, *words)
        return run(*command, timeout=120, environment=self._environment)

    def failure(self, *words: str) -> str:
        with pytest.raises(Failed) as failed:
            self.lxc(*words)
        return str(failed.value)

    def begin(self, url: str, body: object) -> Any:
        """The answer to a POST, which is not waited for."""
        return json.loads(self.lxc("query", "--raw", "-X", "POST", "-d", json.dumps(body), url))

    def row(self, name: str) -> dict[str, Any]:
        """Of an instance `B:c1`, with its snapshots."""
        remote, _, short = name.partition(":")
        rows = json.loads(self.lxc("list", f"{remote}:^{short}$", "--format=json"))
        assert len(rows) == 1, rows
        found: dict[str, Any] = rows[0]
        return found

    def names(self, remote: str) -> list[str]:
        return sorted(row["name"] for row in json.loads(self.lxc("list", f"{remote}:", "--format=json")))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with harness.running(members=3, gpus=0, joined=False) as made:
        first, second, third = made.members
        for alone in (first, third):
            alone.furnish()
        body = {"server_name": first.name, "enabled": True, "server_address": first.address}
        first.ask("PUT", "/1.0/cluster", body)
        second.join(first.token(second.name))
        lxc(third, "config", "set", "core.https_address", third.address)
        busybox(first)
        yield made


@pytest.fixture(scope="module")
def both(cluster: Cluster) -> Remotes:
    remotes = Remotes(cluster)
    for name, member in (("A", remotes.home), ("B", remotes.far)):
        token = lxc(member, "config", "trust", "add", "--name", "tests", "-q").strip().splitlines()[-1]
        remotes.lxc("remote", "add", name, token, "--accept-certificate")
    return remotes


@pytest.fixture(scope="module")
def shown(both: Remotes) -> str:
    """What is to be found in the stopped instance c1 of A, which has a snapshot of what it was before."""
    home = both.home
    lxc(home, "launch", "busybox", "c1", "--target", both.owner.name, "-c", "user.x=1")
    sh(home, "c1", MARKS.format("one"))
    lxc(home, "snapshot", "c1", "s0")
    sh(home, "c1", "echo two >/root/f; chmod 4751 /root/f")
    found = sh(home, "c1", SHOWN)
    assert "two" in found
    assert "same" in found
    lxc(home, "stop", "--force", "c1")
    return found


@pytest.fixture
def remotes(both: Remotes, shown: str) -> Iterator[Remotes]:
    """With c1 only, before and after."""
    yield both
    for member in (both.home, both.far):
        names = {row["name"] for row in member.ask("GET", "/1.0/instances?recursion=1")}
        names -= {"c1"} if member is both.home else set()
        if names:
            lxc(member, "delete", "--force", *sorted(names))
    eventually(lambda: leftovers(both) == [], within=20)


def leftovers(remotes: Remotes) -> list[str]:
    """All that pools still hold of instances, but for c1."""
    folders = [
        pool_of(member, "default") / folder
        for member in (remotes.home, remotes.owner, remotes.far)
        for folder in ("containers", "containers-snapshots")
    ]
    found = [f"{folder}/{name}" for folder in folders for name in names_in(folder)]
    return [path for path in found if f"/{remotes.owner.name}/" not in path or not path.endswith("/c1")]


def started(member: Member, name: str) -> str:
    lxc(member, "start", name)
    return sh(member, name, SHOWN)


def test_copies(remotes: Remotes, shown: str) -> None:
    modes = ("pull", "push", "relay")
    for mode in modes:
        remotes.lxc("copy", "A:c1", f"B:{mode}", f"--mode={mode}")
    for mode in modes:
        row = remotes.row(f"B:{mode}")
        assert ([one["name"] for one in row["snapshots"]], row["config"]["user.x"]) == (["s0"], "1")
        assert started(remotes.far, mode) == shown
    lxc(remotes.far, "restore", "pull", "s0")
    assert sh(remotes.far, "pull", SHOWN) == shown.replace("two", "one")


def test_moves(remotes: Remotes, shown: str) -> None:
    """Its addresses go with it, and what cloud-init knows it by; it is the same instance to others."""
    lxc(remotes.home, "copy", "c1", "c2", "--target", remotes.home.name)
    before = remotes.row("A:c2")["config"]
    remotes.lxc("move", "A:c2", "B:")
    assert remotes.names("A") == ["c1"]
    after = remotes.row("B:c2")["config"]
    for note in ("volatile.base_image", "volatile.cloud-init.instance-id"):
        assert after[note] == before[note]
    assert started(remotes.far, "c2") == shown
    address = remotes.row("B:c2")["config"]["volatile.eth0.hwaddr"]
    lxc(remotes.far, "stop", "--force", "c2")
    remotes.lxc("move", "B:c2", "A:c3", "--target", remotes.owner.name)
    assert remotes.names("B") == []
    assert started(remotes.home, "c3") == shown
    row = remotes.row("A:c3")
    assert (row["location"], row["config"]["volatile.eth0.hwaddr"]) == (remotes.owner.name, address)


def test_what_a_copy_is_of(remotes: Remotes, shown: str) -> None:
    """Without its snapshots; one of these alone; a running one, if its memory may stay behind."""
    home, far = remotes.home, remotes.far
    remotes.lxc("copy", "A:c1", "B:alone", "--instance-only")
    assert (remotes.row("B:alone")["snapshots"] or []) == []
    remotes.lxc("copy", "A:c1/s0", "B:old")
    assert started(far, "old") == shown.replace("two", "one")
    live = "Unable to perform container live migration. CRIU isn't installed on the source server"
    assert live in remotes.failure("copy", "B:old", "A:c2")
    remotes.lxc("copy", "B:old", "A:c2", "--stateless")
    assert started(home, "c2") == shown.replace("two", "one")


def test_a_refresh(remotes: Remotes, shown: str) -> None:
    home, far = remotes.home, remotes.far
    lxc(home, "copy", "c1", "c2")
    remotes.lxc("copy", "A:c2", "B:")
    lxc(home, "snapshot", "c2", "s1")
    lxc(home, "delete", "c2/s0")
    lxc(home, "start", "c2")
    sh(home, "c2", "echo four >/root/f; rm /root/link")
    lxc(home, "stop", "--force", "c2")
    lxc(far, "snapshot", "c2", "mine")
    for mode in ("pull", "push", "relay"):
        remotes.lxc("copy", "A:c2", "B:c2", "--refresh", f"--mode={mode}")
        assert [one["name"] for one in remotes.row("B:c2")["snapshots"]] == ["s1"]
    lxc(far, "start", "c2")
    assert sh(far, "c2", "cat /root/f; ls /root/link").startswith("four\nls: ")
    assert "Instance is running" in remotes.failure("copy", "A:c2", "B:c2", "--refresh")
    lxc(far, "restore", "c2", "s1")
    assert sh(far, "c2", SHOWN) == shown


def test_gpus_are_waited_for_by_the_start_of_what_has_come(remotes: Remotes, shown: str) -> None:
    far = remotes.far
    far.gpus.write_text("gpus:\n- {vendor: nvidia, count: 1}\n")
    eventually(lambda: len(far.ask("GET", "/1.0/gpus")) == 1, within=30)
    remotes.lxc("copy", "A:c1", "B:holder", "-c", "limits.gpu=1")
    lxc(far, "start", "holder")
    assert "0 of 1 GPU free" in remotes.failure("copy", "A:c1", "B:hasty", "-c", "limits.gpu=1")
    remotes.lxc("copy", "A:c1", "B:waits", "-c", "limits.gpu=1", "-c", "gpu.wait=10m")
    assert remotes.row("B:waits")["status"] == "Stopped"
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(remotes.lxc, "start", "B:waits")
        queue = "/1.0/gpu-queue?recursion=1"
        eventually(lambda: [row["instances"] for row in far.ask("GET", queue)] == [["waits"]], within=30)
        lxc(far, "stop", "--force", "holder")
        starting.result()
    assert sh(far, "waits", SHOWN) == shown


def test_volumes(remotes: Remotes) -> None:
    """With their snapshots, in all modes; and brought up to date."""
    home, owner, far, volume = remotes.home, remotes.owner, remotes.far, ("storage", "volume")
    lxc(home, *volume, "create", "default", "data", "user.a=b", "--target", owner.name)
    put(owner, "one")
    lxc(home, *volume, "snapshot", "default", "data", "s0")
    put(owner, "two")
    for mode in ("pull", "push", "relay"):
        remotes.lxc(*volume, "copy", "A:default/data", f"B:default/{mode}", f"--mode={mode}")
    assert contents(far) == ["one", "one", "one", "two", "two", "two"]
    assert custom(far, "push")["config"]["user.a"] == "b"
    for mode in ("pull", "relay"):
        lxc(far, *volume, "delete", "default", mode)
    remotes.lxc(*volume, "copy", "B:default/push", "A:default/back", "--volume-only")
    assert contents(home) == ["two"]
    lxc(far, *volume, "snapshot", "default", "push", "s1")
    lxc(far, *volume, "delete", "default", "push/s0")
    put(far, "three")
    remotes.lxc(*volume, "copy", "B:default/push", "A:default/back", "--refresh")
    assert contents(home) == ["three", "two"]
    assert "already exists" in remotes.failure(*volume, "copy", "B:default/push", "A:default/back")
    lxc(home, *volume, "delete", "default", "back")
    remotes.lxc(*volume, "move", "B:default/push", "A:default/moved")
    assert (contents(far), contents(home)) == ([], ["three", "two"])
    for name in ("moved", "data"):
        lxc(home, *volume, "delete", "default", name)
    assert contents(home) == contents(owner) == []


def custom(member: Member, name: str) -> Any:
    return member.ask("GET", f"/1.0/storage-pools/default/volumes/custom/{name}")


def put(member: Member, text: str) -> None:
    """Into the one custom volume that it has."""
    (folder,) = (pool_of(member, "default") / "custom").iterdir()
    (folder / "f").write_text(text)


def contents(member: Member) -> list[str]:
    """Of all custom volumes, and of their snapshots."""
    pool = pool_of(member, "default")
    return sorted(
        path.read_text() for kind in ("custom/*", "custom-snapshots/*/*") for path in pool.glob(f"{kind}/f")
    )


def test_what_is_wrong_is_told_and_nothing_kept(remotes: Remotes) -> None:
    far = remotes.far
    wrong = {"control": "x", "fs": "y"}
    for sent, said in (
        (offer_at(secrets={"control": "x"}), "Missing fs secret"),
        (offer_at("http://10.0.0.1/1.0/operations/x", wrong), "is not the https:// URL of an operation"),
        (offer_at(secrets=wrong, mode="sideways"), "Mode sideways not implemented"),
    ):
        with pytest.raises(Failed, match=said):
            remotes.begin("B:/1.0/instances", sent)
    offered = remotes.begin("A:/1.0/instances/c1", {"migration": True})["metadata"]
    there = f"https://{remotes.home.address}/1.0/operations/{offered['id']}"
    theirs, ours = (m.ask("GET", "/1.0")["environment"]["certificate"] for m in (remotes.home, far))
    said = outcome(remotes, offer_at(there, offered["metadata"], ours))
    assert "The other server is not the one that was meant" in said
    assert outcome(remotes, offer_at(there, wrong, theirs)) == "The other server refused the connection: 403"
    remotes.lxc("operation", "delete", f"A:{offered['id']}")
    remotes.lxc("copy", "A:c1", "B:c1")
    assert "already exists" in remotes.failure("copy", "A:c1", "B:c1")
    assert remotes.names("B") == ["c1"]


def test_a_target_that_dies_or_is_full_keeps_nothing(remotes: Remotes) -> None:
    far = remotes.far
    far.stop()
    far.start(LXDPY_FAILPOINTS="instance.built=crash")
    assert "Error" in remotes.failure("copy", "A:c1", "B:c2")
    eventually(lambda: far.pid() is None, within=20)
    far.start()
    eventually(lambda: far.ask("GET", "/1.0/instances") == [], within=20)
    lxc(far, "storage", "create", "small", "btrfs", "size=128MiB")
    lxc(far, "storage", "volume", "create", "small", "filler")
    (folder,) = (pool_of(far, "small") / "custom").iterdir()
    fill(folder / "f")
    for mode in ("pull", "push"):
        said = remotes.failure("copy", "A:c1", "B:c4", "-s", "small", f"--mode={mode}")
        assert "No space left to fill a volume" in said
        eventually(lambda: remotes.names("B") == [], within=20)  # the source may hear of it before it is gone
    assert names_in(pool_of(far, "small") / "containers") == []
    lxc(far, "storage", "volume", "delete", "small", "filler")
    lxc(far, "storage", "delete", "small")


def fill(path: Path) -> None:
    """Until there is no room left for anything."""
    with path.open("wb") as file, suppress(OSError):
        while True:
            os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, 1 << 19)


def offer_at(
    operation: str = "https://[::1]:1/1.0/operations/x",
    secrets: dict[str, str] | None = None,
    certificate: str = "",
    mode: str = "pull",
) -> object:
    """The body that makes an instance of what is offered there."""
    source = {"type": "migration", "mode": mode, "operation": operation, "certificate": certificate}
    return {"name": "c9", "source": {**source, "secrets": secrets}}


def outcome(remotes: Remotes, body: object) -> str:
    """The failure of what B makes of the body."""
    begun = remotes.begin("B:/1.0/instances", body)["operation"]
    return str(remotes.far.ask("GET", f"{begun}/wait?timeout=60")["err"])
