"""Exports and imports by the stock client; and of LXD's own, both ways."""

import asyncio
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import LXC, eventually, lxc
from integration.instances import clear, crash, failure, names_in, pool_of, sh
from lxdpy.dev.bench.daemons import LXD
from lxdpy.dev.bench.peer import Peer
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
SHOWN = "cat /root/f; cd /root; find . | sort | xargs stat -c '%n %f %u:%g'; stat -c '%n %f %u:%g' / /tmp"
SEEN = "cd /v; cat f; stat -c '%n %f %u:%g' f t; [ f -ef t ] && stat -c %u:%g ."
WAYS = {"plain.tar.gz": (), "none.tar": ("--compression=none",), "own.tar": ("--optimized-storage",)}


@pytest.fixture
def member(pools: Cluster, tmp_path: Path) -> Iterator[Member]:
    member = pools.members[1]
    member.start()
    yield member
    member.start()
    clear(member)
    assert names_in(member.folder / "backups") == []
    assert names_in(pool_of(member, "bt") / "containers") == []


def launched(member: Member, pool: str) -> str:
    """c1 with a snapshot s0 before what it is now; returns what is seen of it."""
    lxc(member, "launch", "busybox", "c1", "-s", pool, "--target", member.name)
    sh(member, "c1", "echo one >/root/f; chown 5:6 /root/f; ln /root/f /root/t; mkfifo /root/p")
    lxc(member, "snapshot", "c1", "s0")
    sh(member, "c1", "echo two >/root/f; ln -s /etc/passwd /root/l")
    return sh(member, "c1", SHOWN)


@pytest.mark.parametrize("pool", ["default", "bt"])
def test_what_is_exported_can_be_imported(member: Member, tmp_path: Path, pool: str) -> None:
    two = launched(member, pool)
    for number, (name, options) in enumerate(WAYS.items()):
        lxc(member, "export", "c1", str(tmp_path / name), *options)
        lxc(member, "import", str(tmp_path / name), f"i{number}")
        lxc(member, "start", f"i{number}")
        assert sh(member, f"i{number}", SHOWN) == two
        lxc(member, "restore", f"i{number}", "s0")
        assert sh(member, f"i{number}", "cat /root/f") == "one\n"
    other = {"default": "bt", "bt": "default"}[pool]
    lxc(member, "export", "c1", str(tmp_path / "only"), "--instance-only")
    assert failure(member, "import", str(tmp_path / "only")) == 'Instance "c1" already exists'
    lxc(member, "import", str(tmp_path / "only"), "i9", "-s", other)
    lxc(member, "start", "i9")
    assert sh(member, "i9", SHOWN) == two
    assert member.ask("GET", "/1.0/instances/i9/snapshots") == []


@pytest.fixture(scope="module")
def lxd() -> Iterator[Peer]:
    """Debian's own."""
    state = Path(tempfile.mkdtemp(prefix="lxd-test-", dir="/var/lib"))
    state.rmdir()
    peer = Peer(LXD, state, 1)

    async def up() -> None:
        async with peer.client:  # of this loop only
            await peer.up()

    try:
        asyncio.run(up())
        yield peer
        peer.daemon.kill()
    finally:
        peer.down()
        shutil.rmtree(state, ignore_errors=True)


def at_lxd(lxd: Peer, *words: str) -> str:
    environment = lxd.daemon.environment | {"LXD_CONF": str(lxd.state / "conf"), "HOME": str(lxd.state)}
    done = subprocess.run([LXC, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def test_lxd_takes_ours_and_we_take_its(member: Member, lxd: Peer, tmp_path: Path) -> None:
    two = launched(member, "default")
    for number, (name, options) in enumerate(WAYS.items()):
        ours, theirs = tmp_path / f"ours-{name}", tmp_path / f"theirs-{name}"
        lxc(member, "export", "c1", str(ours), *options)
        at_lxd(lxd, "import", str(ours), f"x{number}")
        at_lxd(lxd, "start", f"x{number}")
        assert at_lxd(lxd, "exec", f"x{number}", "--", "sh", "-c", SHOWN) == two
        at_lxd(lxd, "stop", "--force", f"x{number}")
        at_lxd(lxd, "export", f"x{number}", str(theirs), *options)
        lxc(member, "import", str(theirs), f"y{number}")
        lxc(member, "start", f"y{number}")
        assert sh(member, f"y{number}", SHOWN) == two
        lxc(member, "restore", f"y{number}", "s0")
        assert sh(member, f"y{number}", "cat /root/f") == "one\n"
        at_lxd(lxd, "delete", "--force", f"x{number}")


def test_custom_volumes_go_to_lxd_and_come_back(member: Member, lxd: Peer, tmp_path: Path) -> None:
    ours, theirs, own = tmp_path / "ours", tmp_path / "theirs", tmp_path / "own"
    volume, at = ("storage", "volume"), ("--target", member.name)
    lxc(member, "init", "busybox", "c1", *at)
    lxc(member, *volume, "create", "bt", "v1", *at)
    lxc(member, *volume, "attach", "bt", "v1", "c1", "/v")
    lxc(member, "start", "c1")
    sh(member, "c1", "echo one >/v/f; chown 5:6 /v/f; ln /v/f /v/t; chown 7:8 /v; chmod 2750 /v")
    lxc(member, *volume, "snapshot", "bt", "v1", "s0")
    seen = sh(member, "c1", f"echo two >/v/f; {SEEN}")
    lxc(member, *volume, "export", "bt", "v1", str(ours))  # in use
    lxc(member, *volume, "export", "bt", "v1", str(own), "--optimized-storage", "--compression=none")
    at_lxd(lxd, *volume, "import", "default", str(ours), "x1")
    at_lxd(lxd, "init", "busybox", "x1")
    at_lxd(lxd, *volume, "attach", "default", "x1", "x1", "/v")
    at_lxd(lxd, "start", "x1")
    assert at_lxd(lxd, "exec", "x1", "--", "sh", "-c", SEEN) == seen
    at_lxd(lxd, "delete", "--force", "x1")
    at_lxd(lxd, *volume, "export", "default", "x1", str(theirs))  # with the owners that it had there
    lxc(member, *volume, "import", "bt", str(own), "y1", *at)
    lxc(member, *volume, "import", "bt", str(theirs), "y2", *at)
    lxc(member, *volume, "detach", "bt", "v1", "c1")
    for name in ("y1", "y2"):
        lxc(member, *volume, "attach", "bt", name, "c1", "/v")
        assert sh(member, "c1", SEEN) == seen
        assert sh(member, "c1", "stat -c %a /v") == {"y1": "2750\n", "y2": "711\n"}[name]  # LXD's own mode
        lxc(member, *volume, "detach", "bt", name, "c1")
        lxc(member, *volume, "restore", "bt", name, "s0")
        lxc(member, *volume, "attach", "bt", name, "c1", "/v")
        assert sh(member, "c1", "cat /v/f") == "one\n"
        lxc(member, *volume, "detach", "bt", name, "c1")
    for name in ("v1", "y1", "y2"):
        lxc(member, *volume, "delete", "bt", name)
    assert names_in(member.folder / "volume-backups") == []


def test_what_is_no_whole_backup_leaves_nothing(member: Member, tmp_path: Path) -> None:
    launched(member, "default")
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    lxc(member, "export", "c1", str(good), "--compression=none")
    data = good.read_bytes()
    for content, said in (
        (b"hello" * 300, "backup"),
        (data[: len(data) // 2], "cut short"),
        (hostile(data, "backup/container/../../../../etc/evil"), "leads elsewhere"),
        (hostile(data, "backup/container/rootfs/evil", link="/etc/shadow"), "leads elsewhere"),
    ):
        bad.write_bytes(content)
        assert said in failure(member, "import", str(bad), "i1").lower()
    assert [row["name"] for row in member.ask("GET", "/1.0/instances?recursion=1")] == ["c1"]
    assert names_in(pool_of(member, "default") / "containers") == ["c1"]


def hostile(data: bytes, name: str, link: str = "") -> bytes:
    """The backup with one file more."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
        extra = tarfile.TarInfo(name)
        if link:
            extra.type, extra.linkname = tarfile.LNKTYPE, link
        new.addfile(extra)
    return out.getvalue()


def test_a_crash_leaves_no_half_of_it(member: Member, tmp_path: Path) -> None:
    two = launched(member, "default")
    lxc(member, "export", "c1", str(tmp_path / "b"))
    crash(member, "backup.written", "export", "c1", str(tmp_path / "b2"))
    eventually(lambda: names_in(member.folder / "backups") == [], within=20)
    crash(member, "instance.built", "import", str(tmp_path / "b"), "i1")
    eventually(lambda: lxc(member, "start", "i1") == "", within=20)
    assert sh(member, "i1", SHOWN) == two
