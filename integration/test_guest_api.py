"""`/dev/lxd/sock`: what a container sees of us, and that nothing else is seen, or can be used up."""

import json
import os
import selectors
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.containers import python
from integration.guest import ENTER, WEBSOCKET, ask, listen
from integration.harness import eventually, lxc
from integration.instances import busybox, clear, instance, names_in, sh, state
from lxdpy.dev.members import Cluster, Member

pytestmark = pytest.mark.root
SOCKET = "test -S /dev/lxd/sock && echo there"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with harness.running(members=2, gpus=0) as made:
        first = made.members[0]
        busybox(first)
        yield made


@pytest.fixture(scope="module")
def owner(cluster: Cluster) -> Member:
    """Of `c1` and `c2`, which run."""
    own, other = cluster.members
    lxc(
        other,
        "launch",
        "busybox",
        "c1",
        "--target",
        own.name,
        "-c",
        "user.mine=one\ntwo",
        "-c",
        "user.meta-data=a: b",
    )
    lxc(other, "launch", "busybox", "c2", "--target", own.name, "-c", "user.other=secret")
    return own


@pytest.fixture(scope="module")
def other(cluster: Cluster) -> Member:
    return cluster.members[1]


class Told:
    """What a listener has heard so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.heard = ""

    def text(self) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while selector.select(0) and (data := os.read(self.process.stdout.fileno(), 65536)):
                self.heard += data.decode(errors="replace")
        return self.heard

    def end(self) -> None:
        with self.process:
            self.process.kill()


def test_a_container_sees_itself_and_no_other(owner: Member, other: Member) -> None:
    assert ask(owner, "c1", "/").json == ["/1.0"]
    assert ask(owner, "c1", "/1.0").json == {
        "api_version": "1.0", "location": owner.name, "instance_type": "container", "state": "Started"
    }  # fmt: skip
    assert ask(owner, "c1", "/1.0/config").json == ["/1.0/config/user.meta-data", "/1.0/config/user.mine"]
    assert ask(owner, "c1", "/1.0/config/user.mine") == (200, "application/octet-stream", "one\ntwo")
    assert ask(owner, "c1", "/1.0/config/user.other").status == 404
    assert ask(owner, "c2", "/1.0/config/user.other").text == "secret"
    for key in ("volatile.uuid", "security.devlxd", "limits.memory"):
        assert ask(owner, "c1", f"/1.0/config/{key}")[::2] == (403, "not authorized\n")
    row = instance(other, "c1")
    devices = ask(owner, "c1", "/1.0/devices").json
    assert devices["eth0"]["hwaddr"] == row["config"]["volatile.eth0.hwaddr"]
    assert devices["root"] == row["expanded_devices"]["root"]
    told = ask(owner, "c1", "/1.0/meta-data").text
    number = row["config"]["volatile.cloud-init.instance-id"]
    assert told == f"#cloud-config\ninstance-id: {number}\nlocal-hostname: c1\na: b"
    for path in ("/1.0/instances", "/1.0/config/", "/internal/1.0", "/1.0/config/../devices"):
        assert ask(owner, "c1", path).status in (403, 404)
    assert ask(owner, "c1", "/1.0", "DELETE").status == 501


def test_only_root_is_answered_and_nothing_there_can_be_changed(owner: Member) -> None:
    assert ask(owner, "c1", "/1.0", uid=1000)[::2] == (401, "Access denied for non-root user\n")
    assert "Read-only" in sh(owner, "c1", "rm /dev/lxd/sock; ls /dev/lxd")
    assert sh(owner, "c1", "ls /dev/lxd") == "sock\n"
    assert str(owner.folder) not in sh(owner, "c1", "grep /dev/lxd /proc/self/mountinfo")


def test_a_guest_says_that_it_is_ready_until_it_stops(owner: Member, other: Member) -> None:
    listener = subprocess.Popen(
        [harness.LXC, "monitor", "--type=lifecycle", "--format=json"], stdout=subprocess.PIPE,
        env=other.environment | {"LXD_CONF": str(other.folder.parent / "lxc-config")}, cwd="/",
    )  # fmt: skip
    told = Told(listener)
    try:

        def said() -> bool:
            assert ask(owner, "c2", "/1.0", "PATCH", '{"state": "Started"}').status == 200
            assert ask(owner, "c2", "/1.0", "PATCH", '{"state": "Ready"}').status == 200
            return "instance-ready" in told.text()

        eventually(said, within=60)
    finally:
        told.end()
    assert ask(owner, "c2", "/1.0").json["state"] == "Ready"
    eventually(lambda: instance(other, "c2")["status"] == "Ready", within=60)
    assert instance(other, "c2")["config"]["volatile.last_state.ready"] == "true"
    assert state(owner, "c2")["status_code"] == 113
    assert ask(owner, "c2", "/1.0", "PATCH", '{"state": "Perhaps"}').status == 400
    assert ask(owner, "c2", "/1.0", "PATCH", "[" * 5000).status == 400
    lxc(other, "restart", "--force", "c2")
    eventually(lambda: instance(other, "c2")["status"] == "Running", within=60)
    assert ask(owner, "c2", "/1.0").json["state"] == "Started"


def test_changes_are_told_inside(owner: Member, other: Member) -> None:
    lines = Told(listen(owner, "c1"))
    frames = Told(listen(owner, "c1", "?type=device", WEBSOCKET))
    try:
        eventually(lambda: "200 OK" in lines.text() and "101" in frames.text(), within=60)
        lxc(other, "config", "set", "c1", "user.mine=three")
        lxc(other, "config", "device", "add", "c1", "t", "disk", "source=/etc", "path=/mnt/etc")
        lxc(other, "config", "device", "remove", "c1", "t")
        eventually(lambda: '"removed"' in lines.text() and '"removed"' in frames.text(), within=60)
        events = [json.loads(line) for line in lines.text().splitlines() if line.startswith("{")]
        assert events[0]["type"] == "config"
        assert events[0]["metadata"] == {"key": "user.mine", "old_value": "one\ntwo", "value": "three"}
        added = {"type": "disk", "source": "/etc", "path": "/mnt/etc"}
        assert events[1]["metadata"] == {"action": "added", "name": "t", "config": added}
        assert "user.mine" not in frames.text()
    finally:
        lines.end()
        frames.end()


def test_cloud_init_is_told_to_begin_anew_by_another_number(owner: Member, other: Member) -> None:
    before = ask(owner, "c1", "/1.0/meta-data").text
    lxc(other, "config", "set", "c1", "user.unrelated=1")
    assert ask(owner, "c1", "/1.0/meta-data").text == before
    lxc(other, "config", "set", "c1", "cloud-init.user-data=#cloud-config")
    after = ask(owner, "c1", "/1.0/meta-data").text
    assert after != before
    assert after.splitlines()[2:] == before.splitlines()[2:]
    assert ask(owner, "c1", "/1.0/config/cloud-init.user-data").text == "#cloud-config"


def test_it_is_taken_away_and_given_while_it_runs(owner: Member, other: Member) -> None:
    lxc(other, "config", "set", "c2", "security.devlxd=false")
    assert sh(owner, "c2", f"{SOCKET} || echo gone") == "gone\n"
    lxc(other, "restart", "--force", "c2")
    assert sh(owner, "c2", f"{SOCKET} || echo gone") == "gone\n"
    lxc(other, "profile", "set", "default", "user.all=1")
    lxc(other, "config", "unset", "c2", "security.devlxd")
    assert sh(owner, "c2", SOCKET) == "there\n"
    assert ask(owner, "c2", "/1.0/config").json == ["/1.0/config/user.all", "/1.0/config/user.other"]


def test_it_is_there_again_after_the_daemon_died(owner: Member) -> None:
    owner.kill()
    owner.start()
    eventually(lambda: ask(owner, "c1", "/1.0/config/user.other").status == 404, within=60)
    assert ask(owner, "c2", "/1.0/config/user.other").text == "secret"
    sh(owner, "c1", "/sbin/reboot")
    eventually(lambda: ask(owner, "c1", "/1.0").json["state"] == "Started", within=60)


def test_images_are_handed_out_where_they_may_be(owner: Member, other: Member) -> None:
    fingerprint = owner.ask("GET", "/1.0/images")[0].rpartition("/")[2]
    path = f"/1.0/images/{fingerprint}/export"
    assert ask(owner, "c1", path).status == 403
    lxc(other, "config", "set", "c1", "security.devlxd.images=true")
    assert ask(owner, "c1", path).status == 404
    image = owner.ask("GET", f"/1.0/images/{fingerprint}")
    shown = {"public": True, "properties": image["properties"], "profiles": image["profiles"]}
    owner.ask("PUT", f"/1.0/images/{fingerprint}", shown)
    assert ask(owner, "c1", path).status == 200


FLOOD = f"""{ENTER}
held = []
refused = 0
socket.setdefaulttimeout(0.5)
while len(held) < 500 and refused < (40 if len(held) >= 30 else 600):  # the daemon may be slow to accept
    try:
        held.append(connected())
        refused = 0
    except OSError:
        refused += 1
        time.sleep(0.05)
print(len(held), flush=True)
time.sleep(60)
"""


def test_a_guest_uses_up_its_own_limits_only(owner: Member) -> None:
    """Its connections, and the length of what it sends; others are served as before."""
    pid = state(owner, "c1")["pid"]
    flood = subprocess.Popen(python(FLOOD, pid, 0), stdout=subprocess.PIPE, cwd="/")
    try:
        assert flood.stdout is not None
        assert 30 <= int(flood.stdout.readline()) < 100
        assert ask(owner, "c2", "/1.0").status == 200
        assert owner.ask("GET", "/1.0")["api_version"] == "1.0"
    finally:
        with flood:
            flood.kill()
    eventually(lambda: ask(owner, "c1", "/1.0").status == 200, within=60)
    assert ask(owner, "c1", f"/1.0/config/user.{'x' * 9000}").status == 400
    clear(owner)
    assert not names_in(Path(f"/proc/{owner.pid()}/root{owner.folder}/devlxd"))
