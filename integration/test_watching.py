"""What operators watch: warnings, that come and go by themselves, metrics, events and operations."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.core import Metric

from cluster.tls.certificates import make
from integration.harness import LXC, eventually, lxc, lxc_json, lxc_try, metrics
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed, run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

OFFLINE = "Offline cluster member"


def warnings(member: Member, type_: str, location: str) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = lxc_json(member, "warning", "list", "--all")
    return [row for row in shown if (row["type"], row["location"]) == (type_, location)]


def test_a_silent_member_is_warned_of_until_it_is_back(cluster: Cluster) -> None:
    first, second, third = cluster.members
    lxc(first, "config", "set", "cluster.offline_threshold", "2")
    third.kill()
    try:
        (row,) = eventually(lambda: warnings(second, OFFLINE, "n3"), within=40)
        assert (row["status"], row["severity"]) == ("new", "low")
        assert row["entity_url"] == "/1.0/cluster/members/n3"
        assert OFFLINE in lxc(first, "warning", "list")
        lxc(second, "warning", "ack", row["uuid"])
        shown = lxc(first, "warning", "show", row["uuid"])
        assert "status: acknowledged" in shown
        assert "last_message: The member does not answer" in shown
        assert OFFLINE not in lxc(first, "warning", "list")
    finally:
        third.start()
        lxc(first, "config", "unset", "cluster.offline_threshold")
    eventually(lambda: warnings(first, OFFLINE, "n3")[0]["status"] == "resolved", within=40)
    lxc(third, "warning", "delete", row["uuid"])
    assert not warnings(third, OFFLINE, "n3")
    gone = lxc_try(third, "warning", "show", row["uuid"])
    assert (gone.status, "not found" in gone.err) == (1, True)


def test_a_dhcp_server_that_died_is_started_again_and_told_of(cluster: Cluster) -> None:
    file = cluster.members[0].folder / "networks" / "lxdbr0" / "dnsmasq.pid"
    before = file.read_text()
    os.kill(int(before), signal.SIGKILL)
    eventually(lambda: file.read_text() not in ("", before), within=30)

    def told() -> bool:
        rows = warnings(cluster.members[1], "DHCP server of a network ended", "n1")
        return [(row["status"], row["entity_url"]) for row in rows] == [("resolved", "/1.0/networks/lxdbr0")]

    eventually(told, within=30)


METRICS = ":9100"
HTTPS = """
import ssl, sys, urllib.error, urllib.request
url, *files = sys.argv[1:]
context = ssl._create_unverified_context()
if files:
    context.load_cert_chain(*files)
try:
    with urllib.request.urlopen(url, context=context, timeout=20) as reply:
        print(reply.status, reply.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def of(family: Metric, **labels: str) -> list[float]:
    return [one.value for one in family.samples if labels.items() <= one.labels.items()]


def test_an_instance_s_use_is_told_by_the_member_that_has_it(cluster: Cluster) -> None:
    first, second, _ = cluster.members
    lxc(first, "launch", "busybox", "busy", "--target", "n2", "-c", "limits.memory=64MiB")
    lxc(
        first,
        "exec",
        "busy",
        "--",
        "sh",
        "-c",
        "ping -c 1 -W 1 127.0.0.1; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
    )
    who = {"name": "busy", "project": "default", "type": "container"}
    found = metrics(second)
    assert sum(of(found["lxd_cpu_seconds"], mode="user", **who)) > 0
    assert of(found["lxd_memory_MemTotal_bytes"], **who) == [64 << 20]
    assert 0 < of(found["lxd_memory_MemFree_bytes"], **who)[0] < 64 << 20
    assert of(found["lxd_network_receive_packets"], device="lo", **who)[0] >= 2
    assert of(found["lxd_filesystem_size_bytes"], mountpoint="/", **who)[0] > 0
    assert of(found["lxd_procs_total"], **who)[0] >= 1
    assert of(found["lxdpy_instances"], status="Running") == [1]
    assert "lxd_procs_total" not in metrics(first)
    lxc(first, "project", "create", "other")
    assert "lxd_procs_total" not in metrics(second, "/1.0/metrics?project=other")
    assert "lxd_procs_total" in metrics(second, "/1.0/metrics?project=default")
    lxc(first, "delete", "-f", "busy")
    assert "lxd_procs_total" not in metrics(second)


def test_every_member_tells_of_itself_and_of_the_log(cluster: Cluster) -> None:
    eventually(lambda: all_is_told(cluster), within=20)


def all_is_told(cluster: Cluster) -> None:
    told = [metrics(member) for member in cluster.members]
    assert sorted(of(found["lxdpy_raft_leader"])[0] for found in told) == [0, 0, 1]
    for found in told:
        assert of(found["lxdpy_members"], status="online") == [3]
        assert of(found["lxdpy_raft_voters"]) == [3]
        assert of(found["lxd_uptime_seconds"])[0] > 0
        assert of(found["lxdpy_process_resident_memory_bytes"])[0] > 1 << 20
        for name in ("lxd_operations_total", "lxd_warnings_total", "lxdpy_raft_applied"):
            assert len(of(found[name])) == 1


def test_a_port_and_a_certificate_are_good_for_metrics_only(cluster: Cluster) -> None:
    first, second, _ = cluster.members
    host = cluster.net.address("n2")
    files = [cluster.state / "metrics.crt", cluster.state / "metrics.key"]
    for path, text in zip(files, make("metrics"), strict=True):
        path.write_text(text)

    def ask(url: str, *certificate: str) -> tuple[int, str]:
        status, _, body = run(
            *cluster.net.enter("n1", sys.executable, "-c", HTTPS, url, *certificate)
        ).partition(" ")
        return int(status), body

    taken = lxc_try(second, "config", "set", "core.metrics_address", f"{host}:8443")
    assert (taken.status, "Cannot listen" in taken.err) == (1, True)
    lxc(second, "config", "set", "core.metrics_address", METRICS)
    own = [str(path) for path in files]
    api, port = f"https://{second.address}", f"https://{host}{METRICS}"
    assert ask(f"{port}/1.0/metrics", *own)[0] == 403
    lxc(first, "config", "trust", "add", own[0], "--type=metrics")
    eventually(lambda: ask(f"{port}/1.0/metrics", *own)[0] == 200, within=10)
    assert "lxd_uptime_seconds" in ask(f"{api}/1.0/metrics", *own)[1]
    assert ask(f"{api}/1.0/instances", *own)[0] == 403
    assert ask(f"{port}/1.0", *own)[0] == 404
    assert ask(f"{port}/1.0/metrics")[0] == 403
    lxc(first, "config", "set", "core.metrics_authentication", "false")
    eventually(lambda: ask(f"{port}/1.0/metrics")[0] == 200, within=10)
    second.stop()
    second.start()
    eventually(lambda: ask(f"{port}/1.0/metrics")[0] == 200, within=20)
    lxc(second, "config", "unset", "core.metrics_address")
    with pytest.raises(Failed, match="Connection refused"):
        ask(f"{port}/1.0/metrics")
    lxc(first, "config", "unset", "core.metrics_authentication")
    eventually(lambda: ask(f"{api}/1.0/metrics")[0] == 403, within=10)


@contextmanager
def monitor(cluster: Cluster, member: Member, *words: str) -> Iterator[Callable[[], str]]:
    """`lxc monitor` through the member; what it has shown so far."""
    shown = cluster.state / "monitor.log"
    environment = member.environment | {"LXD_CONF": str(cluster.state / "lxc-config")}
    with shown.open("wb") as output:
        child = subprocess.Popen([LXC, "monitor", *words], env=environment, stdout=output, stderr=output)
    try:
        yield shown.read_text
    finally:
        child.kill()
        child.wait()


def test_what_is_done_through_one_member_is_heard_with_its_requestor_at_another(cluster: Cluster) -> None:
    first, second, third = cluster.members
    with monitor(cluster, third, "--pretty", "--type=lifecycle") as heard:

        def listens() -> bool:
            lxc(first, "profile", "set", "default", "user.x", "1")
            lxc(first, "profile", "unset", "default", "user.x")
            return "profile-updated" in heard()

        eventually(listens, within=30)
        lxc(first, "launch", "busybox", "told", "--target", "n2")
        lxc(first, "exec", "told", "true")
        lxc(second, "file", "push", "/etc/hostname", "told/root/")
        lxc(third, "file", "pull", "told/root/hostname", "-")
        lxc(third, "config", "metadata", "show", "told")
        lxc(third, "info", "told", "--show-log")
        lxc(second, "snapshot", "told", "s")
        lxc(first, "export", "told", str(cluster.state / "told.tar.gz"))
        lxc(second, "image", "export", "busybox", str(cluster.state / "image"))
        lxc(first, "stop", "-f", "told")
        lxc(second, "delete", "told")
        wanted = {
            "instance-created", "instance-started", "instance-exec", "instance-file-pushed",
            "instance-log-retrieved", "instance-snapshot-created", "instance-backup-created",
            "instance-backup-retrieved", "image-retrieved", "instance-stopped", "instance-deleted",
            "instance-file-retrieved", "instance-metadata-retrieved",
        }  # fmt: skip
        eventually(lambda: wanted <= {action(line) for line in heard().splitlines()}, within=20)
        assert "Source: /1.0/instances/told/metadata," in heard()
        assert heard().count("path=/root/hostname\n") == 2
        anonymous = [line for line in heard().splitlines() if "Requestor: unix/root" not in line]
    assert not [line for line in anonymous if action(line) in wanted]


def action(line: str) -> str:
    return line.partition("Action: ")[2].partition(",")[0]


def test_operations_are_listed_shown_and_cancelled_anywhere(cluster: Cluster) -> None:
    first, second, third = cluster.members
    lxc(first, "config", "trust", "add", "--name", "guest")
    (token,) = (row for row in lxc_json(second, "operation", "list") if row["class"] == "token")
    assert "description: Executing operation" in lxc(third, "operation", "show", token["id"])
    lxc(second, "operation", "delete", token["id"])
    assert not [row for row in lxc_json(second, "operation", "list") if row["class"] == "token"]
    eventually(lambda: lxc_try(third, "operation", "show", token["id"]).status == 1, within=10)
