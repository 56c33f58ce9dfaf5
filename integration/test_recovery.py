"""The majority is lost for ever, members move to other addresses, a log is spoilt: one command each."""

import shutil
from collections.abc import Iterator

import pytest
import yaml

from cluster.tls.certificates import fingerprint_of, make
from integration.harness import eventually, lxc, lxc_json, running
from integration.instances import busybox
from lxdpy.dev.members import Cluster, Member, NotReady
from lxdpy.dev.netns import Failed, run

DIGEST = "/internal/1.0/cluster/digest"
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(members=3, gpus=0) as made:
        busybox(made.members[0])
        yield made


def statuses(member: Member) -> dict[str, str]:
    return {row["server_name"]: row["status"] for row in lxc_json(member, "cluster", "list")}


def urls(member: Member) -> dict[str, str]:
    return {row["server_name"]: row["url"] for row in lxc_json(member, "cluster", "list")}


def settled(cluster: Cluster) -> None:
    """All members see all others, and hold the same."""
    for member in cluster.members:
        assert set(statuses(member).values()) == {"Online"}
        assert member.ask("GET", DIGEST) == cluster.members[0].ask("GET", DIGEST)


def readdressed(member: Member) -> str:
    return member.address.replace("10.155.0.", "10.155.0.1")


def readdress(cluster: Cluster, member: Member) -> str:
    """Another address for the member's host; the old one is gone. Returns it."""
    new = readdressed(member)
    ip = ("ip", "-n", cluster.net.namespace(member.name), "addr")
    run(*ip, "del", f"{member.address.split(':')[0]}/24", "dev", "eth0")
    run(*ip, "add", f"{new.split(':')[0]}/24", "dev", "eth0")
    return new


def test_all_members_can_move_to_other_addresses(cluster: Cluster) -> None:
    first = cluster.members[0]
    with pytest.raises(Failed, match="A daemon runs on"):
        first.lxdpy("cluster", "edit")
    for member in cluster.members:
        member.stop()
    new = {member.name: readdress(cluster, member) for member in cluster.members}
    shown = yaml.safe_load(first.lxdpy("cluster", "show"))
    for row in shown["members"]:
        row["address"] = new[row["name"]]
    for member in cluster.members:
        member.lxdpy("cluster", "edit", stdin=yaml.safe_dump(shown))
        member.start(wait=False)
    for member in cluster.members:
        member.wait_ready()
    expected = {name: f"https://{address}" for name, address in new.items()}
    eventually(lambda: all(urls(member) == expected for member in cluster.members), within=20)
    eventually(lambda: settled(cluster), within=30)
    assert lxc(first, "config", "get", "core.https_address").strip() == new["n1"]


def test_a_log_that_cannot_be_read_is_refused_and_followed_anew(cluster: Cluster) -> None:
    survivor, other, _ = cluster.members
    lxc(other, "launch", "busybox", "kept", "--target", other.name)
    other.stop()
    journal = other.folder / "cluster/raft/journal"
    content = bytearray(journal.read_bytes())
    content[60] ^= 1
    journal.write_bytes(content)
    with pytest.raises(NotReady, match=r"journal: .*damaged"):
        other.start()
    assert journal.read_bytes() == content
    shutil.copytree(survivor.folder / "cluster/raft", other.folder / "foreign")
    shutil.rmtree(other.folder / "cluster/raft")
    (other.folder / "foreign").rename(other.folder / "cluster/raft")
    with pytest.raises(NotReady, match=r"Error: .*journal belongs to member"):
        other.start()
    other.lxdpy("cluster", "rejoin", "--yes")
    other.start()
    eventually(lambda: lxc(survivor, "exec", "kept", "--", "echo", "alive").strip() == "alive", within=30)
    eventually(lambda: settled(cluster), within=30)
    lxc(survivor, "delete", "--force", "kept")


def test_one_of_three_goes_on_with_its_containers_and_another_comes_back(cluster: Cluster) -> None:
    lost, other, survivor = cluster.members
    lxc(survivor, "launch", "busybox", "here", "--target", survivor.name)
    lxc(other, "launch", "busybox", "there", "--target", other.name)
    for member in cluster.members:
        member.kill()
    assert "n1, n2, n3" in survivor.lxdpy("cluster", "recover", "--yes")
    survivor.start()
    assert statuses(survivor) == {"n1": "Offline", "n2": "Offline", "n3": "Online"}
    assert lxc(survivor, "exec", "here", "--", "echo", "alive").strip() == "alive"
    lxc(survivor, "config", "set", "here", "user.after", "recovery")
    # Who returns with the old state is nobody's.
    lost.start(wait=False)
    eventually(lambda: lost.pid() is not None, within=5)
    lxc(survivor, "cluster", "remove", lost.name, "--force", "--yes")
    lost.kill()
    with pytest.raises(Failed, match="does not know this server: it was removed"):
        lost.lxdpy("cluster", "rejoin", "--yes")
    files = [cluster.state / "new.crt", cluster.state / "new.key"]
    for path, text in zip(files, make("cluster"), strict=True):
        path.write_text(text)
    lxc(survivor, "cluster", "update-certificate", *map(str, files))
    with pytest.raises(Failed, match="as expected"):
        other.lxdpy("cluster", "rejoin", "--yes")
    other.lxdpy("cluster", "rejoin", "--yes", "--fingerprint", fingerprint_of(files[0].read_text()))
    other.start()
    eventually(lambda: statuses(survivor) == {"n2": "Online", "n3": "Online"}, within=30)
    eventually(lambda: lxc(survivor, "exec", "there", "--", "echo", "alive").strip() == "alive", within=20)
    assert lxc(other, "config", "get", "here", "user.after").strip() == "recovery"


def test_a_fresh_server_begins_with_an_exported_state(cluster: Cluster) -> None:
    fresh, _, old = cluster.members
    old.stop()
    state = old.lxdpy("cluster", "export")
    old.start()
    shutil.rmtree(fresh.folder)
    fresh.folder.mkdir(mode=0o711)
    file = cluster.state / "state.yaml"
    file.write_text(state)
    fresh.lxdpy("cluster", "import", str(file), "--as", "n3", "--address", readdressed(fresh), "--yes")
    fresh.start()
    assert statuses(fresh) == {"n2": "Offline", "n3": "Online"}
    assert {row["name"]: row["location"] for row in lxc_json(fresh, "list")} == {"here": "n3", "there": "n2"}
    lxc(fresh, "profile", "create", "after")
    assert "after" not in lxc(old, "profile", "list", "--format=csv"), "another cluster"
