"""Certificates are replaced under way, on all members, and who is not trusted any more is cut off."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.tls.certificates import fingerprint_of, make
from integration.harness import LXC, eventually, lxc, lxc_json, lxc_try
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed, run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
AGREED = 15.0  # seconds for what one member did to be known to another one, on a busy host
SHOWN = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))"


def shown(cluster: Cluster, member: Member) -> str:
    """Fingerprint of what a stranger sees."""
    host, port = member.address.split(":")
    pem = run(*cluster.net.enter("n1", sys.executable, "-c", SHOWN, host, port))
    return fingerprint_of(pem)


def statuses(member: Member) -> set[str]:
    return {row["status"] for row in lxc_json(member, "cluster", "list")}


def fingerprint(member: Member) -> str:
    """Of the member's own."""
    return fingerprint_of((member.folder / "server.crt").read_text())


def test_a_new_cluster_certificate_is_shown_by_all_also_by_one_that_was_down(cluster: Cluster) -> None:
    first, second, third = cluster.members
    lxc(first, "launch", "busybox", "far", "--target", third.name)
    third.stop()
    certificate, key = make("cluster")
    files = [cluster.state / "new.crt", cluster.state / "new.key"]
    for path, text in zip(files, (certificate, key), strict=True):
        path.write_text(text)
    assert lxc_try(first, "cluster", "update-certificate", str(files[0]), "/etc/hostname").status == 1
    lxc(first, "cluster", "update-certificate", *map(str, files))
    wanted = fingerprint_of(certificate)
    eventually(lambda: shown(cluster, first) == shown(cluster, second) == wanted, within=AGREED)
    lxc(second, "profile", "create", "whoever-has-it-first-waits")
    third.start()
    eventually(lambda: shown(cluster, third) == wanted, within=AGREED)
    eventually(lambda: statuses(first) == statuses(third) == {"Online"}, within=20)
    assert lxc(first, "exec", "far", "--", "echo", "through").strip() == "through"
    assert lxc(third, "profile", "list", "--format=csv").count("whoever-has-it") == 1


def test_a_member_s_own_is_renewed_while_all_go_on_trusting_it(cluster: Cluster) -> None:
    first, second, third = cluster.members
    old, gpus = fingerprint(second), {row["uuid"] for row in first.ask("GET", "/1.0/gpus?recursion=1")}
    third.freeze()
    eventually(lambda: statuses(second) == {"Online", "Offline"}, within=20)
    with pytest.raises(Failed, match="would not know it again: n3"):
        second.lxdpy("cluster", "renew-certificate")
    third.thaw()
    eventually(lambda: statuses(first) == statuses(second) == {"Online"}, within=20)
    assert "Member n2 has another certificate" in first.lxdpy("cluster", "renew-certificate", "n2")
    assert fingerprint(second) != old
    for member in cluster.members:
        assert lxc(member, "exec", "far", "--", "echo", "through").strip() == "through"
        # Its links with the old one have ended, and are made again.
        eventually(lambda member=member: statuses(member) == {"Online"}, within=20)  # type: ignore[misc]
    second.kill()
    second.start()
    eventually(lambda: statuses(second) == {"Online"}, within=20)
    lxc(second, "profile", "create", "renewed")
    assert {row["uuid"] for row in second.ask("GET", "/1.0/gpus?recursion=1")} == gpus


def test_a_client_that_is_removed_is_cut_off_in_mid_sentence(cluster: Cluster) -> None:
    first, second, third = cluster.members
    token = lxc(first, "config", "trust", "add", "--name", "guest").split()[-1]
    outside = Client(cluster, "guest")
    outside.run("remote", "add", "them", token)
    outside.run("list", "them:")
    with (
        outside.going_on("exec", "them:far", "--", "sleep", "1000") as shell,
        outside.going_on("monitor", "them:") as ear,
    ):
        eventually(lambda: "sleep" in lxc(third, "exec", "far", "--", "ps"), within=15)
        assert (shell.poll(), ear.poll()) == (None, None)
        row = next(
            row for row in second.ask("GET", "/1.0/certificates?recursion=1") if row["name"] == "guest"
        )
        lxc(second, "config", "trust", "remove", row["fingerprint"])
        shell.wait(AGREED)
        ear.wait(AGREED)
    eventually(lambda: "sleep" not in lxc(third, "exec", "far", "--", "ps"), within=10)
    with pytest.raises(Failed):
        outside.run("list", "them:")


class Client:
    """The stock client of somebody outside, who reaches the members over the network only."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._enter = cluster.net.enter("n1")
        folder = cluster.state / name
        folder.mkdir(mode=0o700)
        self._words = [*self._enter, "env", f"LXD_CONF={folder}", f"HOME={folder}", LXC]

    def run(self, *words: str) -> str:
        return run(*self._words, *words)

    @contextmanager
    def going_on(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            [*self._words, *words],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()
