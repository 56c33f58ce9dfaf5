"""Files of instances, with the stock client: running and stopped, here and through a member without them."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from integration.harness import LXC, eventually, lxc, lxc_try
from integration.instances import clear, sh
from lxdpy.dev.api import Connection
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

UPGRADE = "GET /1.0/instances/{}/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n"
HELLO = b"\0\0\0\5\1\0\0\0\3"  # INIT, version 3


@pytest.fixture(scope="module", autouse=True)
def made(cluster: Cluster) -> Iterator[None]:
    """`on`, that runs, and `off`, that does not; both on the first member."""
    owner = cluster.members[0]
    lxc(owner, "launch", "busybox", "on", "--target", owner.name)
    lxc(owner, "init", "busybox", "off", "--target", owner.name)
    yield
    clear(owner)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "one").write_text("1\n")
    (top / "sub" / "empty").touch()
    (top / "big").write_bytes(os.urandom(3_000_000))
    (top / "one").chmod(0o640)
    (top / "sub").chmod(0o751)
    (top / "link").symlink_to("sub/empty")
    return top


@pytest.mark.parametrize("name", ["on", "off"])
@pytest.mark.parametrize("member", [0, 1])
def test_trees_go_in_and_come_out(
    cluster: Cluster, name: str, member: int, tree: Path, tmp_path: Path
) -> None:
    via = cluster.members[member]
    target = f"{name}/root/to{member}"
    lxc(via, "file", "push", "-p", "-r", str(tree), f"{target}/")
    lxc(via, "file", "pull", "-r", f"{target}/tree", str(tmp_path / "back"))
    back = tmp_path / "back" / "tree"
    assert (back / "one").read_text() == "1\n"
    assert (back / "big").read_bytes() == (tree / "big").read_bytes()
    assert (back / "sub" / "empty").read_bytes() == b""
    assert os.readlink(back / "link") == f"/root/to{member}/tree/sub/empty"
    assert [(back / path).stat().st_mode & 0o777 for path in ("one", "sub")] == [0o640, 0o751]


@pytest.mark.parametrize("name", ["on", "off"])
def test_one_file_is_written_changed_and_deleted(cluster: Cluster, name: str, tmp_path: Path) -> None:
    via = cluster.members[1]
    file = f"{name}/root/f"
    lxc(via, "file", "push", "-", file, "--mode=0750", "--uid=7", "--gid=8", stdin="first\n")
    lxc(via, "file", "push", "-", file, "--mode=0600", stdin="second\n")
    assert shown(via, name, "/root/f") == ("file", "7", "8", "0750"), "a file that is there stays whose it is"
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/second/third/ $1\n")
    editor.chmod(0o755)
    master, slave = os.openpty()  # from anything else it would read the new content
    environment = via.environment | {"EDITOR": str(editor), "LXD_CONF": str(tmp_path), "HOME": str(tmp_path)}
    with os.fdopen(master, "rb"), os.fdopen(slave, "rb") as terminal:
        subprocess.run([LXC, "file", "edit", file], check=True, stdin=terminal, env=environment)
    assert lxc(via, "file", "pull", file, "-") == "third\n"
    lxc(via, "file", "delete", file)
    gone = lxc_try(via, "file", "pull", file, "-")
    assert gone.status == 1
    assert gone.err.strip() == "Error: Not Found"


def asked(via: Member, method: str, path: str, body: str = "", **headers: str) -> tuple[Message, str]:
    """Headers and body of the answer."""
    with contextlib.closing(Connection(via.socket, 60)) as link:
        sent = {f"X-LXD-{name}": value for name, value in headers.items()}
        link.request(method, f"/1.0/instances/{path}", body, sent)
        reply = link.getresponse()
        return reply.headers, reply.read().decode()


def shown(via: Member, name: str, path: str) -> tuple[str | None, ...]:
    headers, _ = asked(via, "HEAD", f"{name}/files?path={path}")
    return tuple(headers[f"X-LXD-{word}"] for word in ("type", "uid", "gid", "mode"))


@pytest.mark.parametrize("name", ["on", "off"])
def test_no_link_leads_out_of_the_instance(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """Neither to the host's files, nor with the host's rights."""
    via, secret = cluster.members[0], tmp_path / "secret"
    secret.write_text("of the host\n")
    tmp_path.chmod(0o755)
    up = "../" * 12
    for number, target in enumerate((str(secret), f"{up}{secret}", "/proc/1/root" + str(secret))):
        path = f"/root/l{number}"
        asked(via, "POST", f"{name}/files?path={path}", target, type="symlink")
        assert lxc_try(via, "file", "pull", f"{name}{path}/../secret", "-").status == 1
        for below in (path, f"/root/l{number}/x"):
            lxc_try(via, "file", "push", "-", f"{name}{below}", stdin="overwritten")
    asked(via, "POST", f"{name}/files?path=/root/root", "/", type="symlink")
    assert asked(via, "GET", f"{name}/files?path=/root/root{tmp_path}/secret")[1].startswith(
        '{"type":"error"'
    )
    assert secret.read_text() == "of the host\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_what_is_no_file_is_refused_at_once(cluster: Cluster) -> None:
    via = cluster.members[0]
    sh(via, "on", "mkfifo /root/pipe; ln -s /dev/zero /root/zero")
    for path in ("/root/pipe", "/dev/null"):
        assert "not a regular file" in asked(via, "GET", f"on/files?path={path}")[1]
        assert "not a regular file" in asked(via, "POST", f"on/files?path={path}", "x")[1]
    assert "not a regular file" in asked(via, "POST", "on/files?path=/root/zero", "x")[1]
    assert asked(via, "GET", "on/files?path=/proc/1/comm")[1].strip() == "init", (
        "made up by the kernel, so no size"
    )
    assert "Missing path argument" in asked(via, "GET", "on/files")[1]


@contextlib.contextmanager
def mounted(via: Member, what: str, target: Path) -> Iterator[Path]:
    target.mkdir()
    conf = {"LXD_CONF": str(target.parent), "HOME": str(target.parent)}
    child = subprocess.Popen(
        [LXC, "file", "mount", what, str(target)], env=via.environment | conf,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: os.path.ismount(target), within=60)
        yield target
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(60)
        subprocess.run(["umount", "-lq", str(target)], check=False)


@pytest.mark.parametrize("name", ["on", "off"])
def test_an_instance_can_be_mounted(cluster: Cluster, name: str, tmp_path: Path) -> None:
    via = cluster.members[2]
    with mounted(via, f"{name}/root", tmp_path / "mnt") as there:
        (there / "deep" / "er").mkdir(parents=True)
        (there / "deep" / "a").write_text("text")
        (there / "deep" / "a").rename(there / "deep" / "b")
        (there / "deep" / "b").chmod(0o601)
        (there / "deep" / "er").rmdir()
        assert [path.name for path in (there / "deep").iterdir()] == ["b"]
    assert shown(via, name, "/root/deep/b") == ("file", "0", "0", "0601")
    assert lxc(via, "file", "pull", f"{name}/root/deep/b", "-") == "text"


def session(via: Member, name: str) -> socket.socket:
    """An open SFTP connection."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(via.socket))
    client.sendall(UPGRADE.format(name).encode())
    head = client.recv(4096)
    assert head.startswith(b"HTTP/1.1 101 "), head
    client.sendall(HELLO)
    assert client.recv(4096)
    return client


@pytest.mark.parametrize("member", [0, 1])
def test_open_sessions_are_in_nobodys_way(cluster: Cluster, member: int) -> None:
    via = cluster.members[member]
    lxc(via, "init", "busybox", "busy", "--target", cluster.members[0].name)
    with session(via, "busy") as before:
        lxc(via, "file", "push", "-", "busy/root/f", stdin="x\n")
        lxc(via, "start", "busy")
        assert before.recv(1) == b""
    assert sh(via, "busy", "cat /root/f; touch /root/g; ls /root").split() == ["x", "f", "g"]
    with session(via, "busy") as during:
        lxc(via, "stop", "busy", "--force")
        assert during.recv(1) == b""
    with session(via, "busy") as after:
        lxc(via, "rename", "busy", "busier")
        assert after.recv(1) == b""
    with session(via, "busier") as last:
        lxc(via, "delete", "busier")
        assert last.recv(1) == b""


def test_a_crash_of_the_daemon_leaves_nothing_mounted_in_the_way(cluster: Cluster) -> None:
    owner = cluster.members[0]
    lxc(owner, "init", "busybox", "left", "--target", owner.name)
    with session(owner, "left"):
        owner.kill()
    owner.start()
    # It answers before it has caught up with the log.
    eventually(lambda: lxc(owner, "start", "left") == "", within=60)
    assert sh(owner, "left", "touch /root/f && ls /root").split() == ["f"]


def test_servers_end_when_nobody_wants_files(cluster: Cluster) -> None:
    owner = cluster.members[0]
    lxc(owner, "file", "push", "-", "on/root/f", stdin="x")
    lxc(owner, "file", "push", "-", "off/root/f", stdin="x")
    mount = f"{owner.folder}/storage-pools/default/containers/off/rootfs"

    def idle() -> bool:
        return mount not in Path("/proc/self/mountinfo").read_text() and not servers(owner)

    eventually(idle, within=60)


def servers(owner: Member) -> list[str]:
    """Processes below the daemon's helper that are in another root: some in ours wait to mount for others."""
    found = [child for helper in children(owner.pid() or 0) for child in children(int(helper))]
    return [child for child in found if not Path(f"/proc/{child}/root").samefile("/")]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_client_that_does_not_read_delays_nobody(cluster: Cluster) -> None:
    via = cluster.members[0]
    sh(via, "on", "head -c 50000000 /dev/zero > /root/zeros")
    with contextlib.ExitStack() as stalled:
        for _ in range(8):
            client = stalled.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(via.socket))
            client.sendall(b"GET /1.0/instances/on/files?path=/root/zeros HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.5)
        assert lxc(via, "file", "pull", "on/proc/1/comm", "-") == "init\n"
    sh(via, "on", "rm /root/zeros")
