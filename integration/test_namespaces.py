"""The ground the other tests stand on: members that reach each other, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.harness import eventually
from lxdpy.dev import leftovers
from lxdpy.dev.netns import Failed, Net, run

pytestmark = pytest.mark.root
LISTEN = """import socket, sys
server = socket.create_server(("", 9000))
print("ready", flush=True)
while True:
    server.accept()[0].sendall(b"hello")"""
GREET = "import socket, sys; print(socket.create_connection((sys.argv[1], 9000), 1).recv(9).decode())"


@pytest.fixture
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    made = Net(f"test-{request.node.name[:20]}", ("n1", "n2"))
    made.up()
    try:
        yield made
    finally:
        leftovers.end(lambda: [pid for name in made.members for pid in made.processes(name)])
        made.down()


@contextmanager
def listening(net: Net, name: str) -> Iterator[None]:
    with subprocess.Popen(net.enter(name, sys.executable, "-c", LISTEN), stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()


def greet(net: Net, name: str, address: str) -> str:
    return run(*net.enter(name, sys.executable, "-c", GREET, address), timeout=10)


def test_members_reach_each_other_unless_cut_off(net: Net) -> None:
    with listening(net, "n2"):
        assert "hello" in greet(net, "n1", net.address("n2"))
        assert "hello" in greet(net, "switch", net.address("n2"))
        net.cut("n2")
        with pytest.raises(Failed):
            greet(net, "n1", net.address("n2"))
        net.mend("n2")
        eventually(lambda: "hello" in greet(net, "n1", net.address("n2")), within=5)


def test_there_is_no_way_out(net: Net) -> None:
    routes = run(*net.enter("n1", "ip", "route"))
    assert "default" not in routes
    with pytest.raises(Failed, match="unreachable"):
        greet(net, "n1", "192.0.2.1")


def test_a_member_sees_its_own_interfaces_and_the_hosts_cgroups(net: Net) -> None:
    assert set(run(*net.enter("n1", "ls", "/sys/class/net")).split()) == {"eth0", "lo"}
    here = run("ls", "/sys/fs/cgroup")
    assert run(*net.enter("n1", "ls", "/sys/fs/cgroup")) == here


def test_mounts_outlive_the_process_but_not_the_member(net: Net) -> None:
    run(*net.enter("n1", "mount", "-t", "tmpfs", "lxdpy-test", "/mnt"))
    assert "lxdpy-test /mnt" in run(*net.enter("n1", "cat", "/proc/mounts"))
    assert "lxdpy-test /mnt" not in run("cat", "/proc/mounts")
    assert "lxdpy-test /mnt" not in run(*net.enter("n2", "cat", "/proc/mounts"))
    net.down()
    net.up()
    assert "lxdpy-test /mnt" not in run(*net.enter("n1", "cat", "/proc/mounts"))


def test_going_up_or_down_again_changes_nothing(net: Net) -> None:
    net.up()
    assert list(net.processes("n1")) == []
    net.down()
    net.down()
    assert not [line for line in leftovers.found() if net.tag in line]


def test_what_runs_in_a_member_is_found_and_ended(net: Net) -> None:
    with subprocess.Popen(net.enter("n1", "sleep", "60")) as sleeper:
        eventually(lambda: sleeper.pid in net.processes("n1"), within=5)
        leftovers.end(lambda: net.processes("n1"))
        assert sleeper.wait(5) == -9
