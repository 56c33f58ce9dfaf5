"""Proxy devices and forwards of networks: what passes, on without the daemon, and that nothing stays."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_try, running
from integration.instances import busybox, failure, instance, processes_with, sh, state
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
SOON = 20.0  # seconds
UDP = """
import socket
end = socket.socket(type=socket.SOCK_DGRAM)
end.bind(("127.0.0.1", 5353))
while True:
    said, sender = end.recvfrom(2000)
    end.sendto(said[::-1], sender)
"""
ECHO = "nc -ll -p {port} -e cat >/dev/null 2>&1 &"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(members=2, gpus=0) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture(scope="module")
def owner(cluster: Cluster) -> Member:
    """Whose host listens: it has the instance c1."""
    one, two = cluster.members
    lxc(two, "launch", "busybox", "c1", "--target", one.name)
    serve(two)
    return one


@pytest.fixture
def other(cluster: Cluster, owner: Member) -> Iterator[Member]:
    """Through which everything is said; afterwards no device and no process is left."""
    two = cluster.members[1]
    yield two
    for name in sorted(instance(two, "c1")["devices"], reverse=True):
        remove(two, name)
    assert processes(owner) == []


def remove(member: Member, device: str) -> None:
    """Tried again if the instance was just changed by what its owner noticed of it."""
    words = ("config", "device", "remove", "c1", device)
    eventually(lambda: device not in instance(member, "c1")["devices"] or lxc(member, *words), within=SOON)


def serve(member: Member) -> None:
    """Have something answer at port 80 inside, each connection with what it says."""
    sh(member, "c1", ECHO.format(port=80))


def is_known(member: Member) -> bool:
    """Whether the daemon has noticed which first process the container has by now."""
    record = json.loads((member.folder / "run" / "c1.json").read_text().splitlines()[-1])
    return bool(record["init"] == state(member, "c1")["pid"])


def processes(member: Member) -> list[int]:
    """Of the member's proxies."""
    folder = os.fsencode(member.folder)
    return processes_with(lambda word: word.startswith(folder) and b"/proxy." in word)


def on_host(member: Member, *words: str, said: str = "") -> str:
    """A program in the member's network; what it prints, errors too."""
    done = subprocess.run(
        member.net.enter(member.name, *words),
        input=said, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def echoed(member: Member, port: int = 8080, host: str = "127.0.0.1") -> str:
    return on_host(member, "busybox", "nc", "-w", "5", host, str(port), said="hello")


def test_a_port_of_the_host_leads_into_the_instance(owner: Member, other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:127.0.0.1:8080,8090-8091",
        "connect=tcp:127.0.0.1:80")  # fmt: skip
    eventually(lambda: echoed(owner) == "hello", within=SOON)
    eventually(lambda: echoed(owner, 8091) == "hello", within=SOON)
    lxc(other, "config", "device", "set", "c1", "web", "listen=tcp:127.0.0.1:8081")
    eventually(lambda: echoed(owner, 8081) == "hello", within=SOON)
    assert "hello" not in echoed(owner)
    lxc(other, "config", "device", "remove", "c1", "web")
    assert "hello" not in echoed(owner, 8081)


def leased(member: Member) -> str:
    """The instance's IPv4 address, once it has one."""
    addresses = (state(member, "c1")["network"] or {}).get("eth0", {}).get("addresses", [])
    return next((str(one["address"]) for one in addresses if one["family"] == "inet"), "")


def test_a_forward_of_a_network_leads_into_the_instance(owner: Member, other: Member) -> None:
    target, at = eventually(lambda: leased(other), within=SOON), ("--target", owner.name)
    forward, listen = ("network", "forward"), owner.net.address(owner.name)
    lxc(other, *forward, "create", "lxdbr0", listen, *at)
    again = failure(other, *forward, "create", "lxdbr0", listen, *at)
    assert "A forward for that listen address already exists" in again
    lxc(other, *forward, "port", "add", "lxdbr0", listen, "tcp", "8085,8087-8089", target, "80", *at)
    eventually(lambda: echoed(owner, 8088, listen) == "hello", within=SOON)
    eventually(lambda: echoed(other, 8088, listen) == "hello", within=SOON)
    wrong = failure(other, *forward, "port", "add", "lxdbr0", listen, "tcp", "8086", "192.0.2.1", *at)
    assert "Target address is not within the network subnet" in wrong
    assert f"{listen},,,1,{owner.name}" in lxc(other, *forward, "list", "lxdbr0", "--format=csv")
    owner.kill()
    owner.start()
    assert echoed(other, 8085, listen) == "hello"
    lxc(other, *forward, "delete", "lxdbr0", listen, *at)
    eventually(lambda: "hello" not in echoed(other, 8085, listen), within=SOON)


def test_it_goes_on_without_the_daemon_and_is_found_again(owner: Member, other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:127.0.0.1:8080",
        "connect=tcp:127.0.0.1:80")  # fmt: skip
    before = processes(owner)
    owner.kill()
    assert echoed(owner) == "hello"
    owner.start()
    eventually(lambda: lxc_try(other, "exec", "c1", "true").status == 0, within=30)
    assert processes(owner) == before
    lxc(other, "config", "device", "remove", "c1", "web")
    assert processes(owner) == []


def test_one_that_died_is_started_again(owner: Member, other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:127.0.0.1:8080",
        "connect=tcp:127.0.0.1:80")  # fmt: skip
    (dead,) = processes(owner)
    os.kill(dead, 9)
    eventually(lambda: processes(owner) not in ([], [dead]), within=SOON)
    eventually(lambda: echoed(owner) == "hello", within=SOON)


def test_it_goes_and_comes_with_the_container(owner: Member, other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:127.0.0.1:8080",
        "connect=tcp:127.0.0.1:80")  # fmt: skip
    lxc(other, "stop", "--force", "c1")
    assert processes(owner) == []
    lxc(other, "start", "c1")
    serve(other)
    eventually(lambda: echoed(owner) == "hello", within=SOON)
    before = processes(owner)
    sh(other, "c1", "reboot -f")
    eventually(lambda: processes(owner) not in ([], before), within=SOON)
    eventually(lambda: is_known(owner), within=SOON)  # else the change of the next test starts it anew
    serve(other)
    eventually(lambda: echoed(owner) == "hello", within=SOON)


def test_a_socket_of_the_host_is_reached_from_the_instance(
    owner: Member, other: Member, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as app:
        app.bind(str(tmp_path / "app"))
        app.listen()
        app.settimeout(SOON)
        words = ("proxy", "bind=instance", f"connect=unix:{tmp_path}/app")
        lxc(other, "config", "device", "add", "c1", "file", *words, "listen=unix:/run/app", "uid=7", "gid=8",
            "mode=0660")  # fmt: skip
        assert sh(other, "c1", "stat -c '%F %u:%g %a' /run/app").strip() == "socket 7:8 660"
        lxc(other, "config", "device", "remove", "c1", "file")
        assert "No such file" in sh(other, "c1", "ls /run/app")
        lxc(other, "config", "device", "add", "c1", "out", *words, "listen=tcp:127.0.0.1:81")
        sh(other, "c1", "(echo from inside | nc 127.0.0.1 81) >/dev/null 2>&1 &")
        client, _ = app.accept()
        with client:
            client.settimeout(SOON)
            assert client.recv(100) == b"from inside\n"


def test_a_unix_socket_is_left_with_its_owner_and_taken_away(
    owner: Member, other: Member, tmp_path: Path
) -> None:
    path = tmp_path / "front"
    lxc(other, "config", "device", "add", "c1", "in", "proxy", f"listen=unix:{path}",
        "connect=tcp:127.0.0.1:80", "uid=11", "mode=0600",
        "security.uid=1000", "security.gid=1000")  # fmt: skip
    found = path.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (11, 0o600)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SOON)
        client.connect(str(path))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    (pid,) = processes(owner)
    status = Path(f"/proc/{pid}/status").read_text()
    base = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert f"Uid:\t{base + 1000}\t{base + 1000}\t{base + 1000}" in status
    assert "CapEff:\t0000000000000000" in status
    lxc(other, "stop", "--force", "c1")
    assert not path.exists()
    lxc(other, "config", "device", "remove", "c1", "in")
    lxc(other, "start", "c1")
    serve(other)


def test_a_process_for_an_instance_has_no_rights_on_the_host(owner: Member, other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:127.0.0.1:8080",
        "connect=tcp:127.0.0.1:80")  # fmt: skip
    (pid,) = processes(owner)
    init = instance_init(other)
    for kind in ("net", "mnt", "user"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{init}/ns/{kind}")
    assert (
        os.stat(f"/proc/{pid}").st_uid >= 1_000_000
        or "Uid:\t0" not in Path(f"/proc/{pid}/status").read_text()
    )
    assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
    assert str(pid) not in sh(other, "c1", "ls /proc").split()


def instance_init(member: Member) -> int:
    return int(member.ask("GET", "/1.0/instances/c1/state")["pid"])


def test_datagrams_pass(owner: Member, other: Member) -> None:
    server = subprocess.Popen(
        ["nsenter", "--net", "--target", str(instance_init(other)), sys.executable, "-c", UDP]
    )
    try:
        lxc(other, "config", "device", "add", "c1", "dns", "proxy", "listen=udp:127.0.0.1:5300",
            "connect=udp:127.0.0.1:5353")  # fmt: skip
        ask = (
            "import socket; end = socket.socket(type=socket.SOCK_DGRAM); end.settimeout(1);"
            "end.sendto(b'abc', ('127.0.0.1', 5300)); print(end.recv(100).decode())"
        )
        eventually(lambda: "cba" in on_host(owner, sys.executable, "-c", ask), within=SOON)
    finally:
        server.kill()
        server.wait()


def test_nat_needs_no_process(owner: Member, other: Member) -> None:
    wrong = failure(other, "config", "device", "add", "c1", "web", "proxy", "nat=true",
                    "listen=tcp:10.77.0.1:8080", "connect=tcp:0.0.0.0:80")  # fmt: skip
    assert "nat needs a NIC with a fixed ipv4.address" in wrong
    subnet = lxc(other, "network", "get", "lxdbr0", "ipv4.address").strip().rpartition(".")[0]
    lxc(other, "config", "device", "override", "c1", "eth0", f"ipv4.address={subnet}.77")
    sh(other, "c1", f"ip addr flush dev eth0; ip addr add {subnet}.77/24 dev eth0; ip link set eth0 up;"
       f"ip route add default via {subnet}.1")  # fmt: skip
    run(*owner.net.enter(owner.name, "ip", "addr", "add", "10.77.0.1/32", "dev", "lo"))
    lxc(other, "config", "device", "add", "c1", "web", "proxy", "nat=true",
        "listen=tcp:10.77.0.1:8080", "connect=tcp:0.0.0.0:80")  # fmt: skip
    assert processes(owner) == []
    eventually(lambda: echoed(owner, host="10.77.0.1") == "hello", within=SOON)
    assert "proxy_" in on_host(owner, "nft", "list", "tables")
    lxc(other, "config", "device", "remove", "c1", "web")
    assert "proxy_" not in on_host(owner, "nft", "list", "tables")


def test_a_port_in_use_takes_the_change_back(owner: Member, other: Member) -> None:
    held = subprocess.Popen(owner.net.enter(owner.name, "busybox", "nc", "-l", "-p", "8099"))
    try:
        eventually(lambda: ":8099" in on_host(owner, "ss", "-ltn"), within=SOON)
        said = failure(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:0.0.0.0:8099",
                       "connect=tcp:127.0.0.1:80")  # fmt: skip
        assert "Cannot listen on tcp:0.0.0.0:8099: Address already in use" in said
        assert "web" not in instance(other, "c1")["devices"]
        assert processes(owner) == []
    finally:
        held.kill()
        held.wait()


def test_a_bad_option_is_told_with_its_value(other: Member) -> None:
    said = failure(other, "config", "device", "add", "c1", "web", "proxy", "listen=tcp:localhost:80",
                   "connect=tcp:127.0.0.1:80")  # fmt: skip
    assert '"tcp:localhost:80" is not an address such as tcp:127.0.0.1:80' in said
