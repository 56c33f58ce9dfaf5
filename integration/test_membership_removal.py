"""Members are removed, be they well, dead or cut off: at once for the others, and they keep no secret."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox
from lxdpy.dev.api import Refused
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

AGREED = 15.0  # seconds for what one member did to be known to another one, on a busy host
TOLD_WITHIN = 20.0  # seconds for a removed member to be told and to begin anew; one or two on an idle host


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    with running(members=4, gpus=1) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture(autouse=True)
def whole(four: Cluster) -> Iterator[None]:
    """Who was removed joins again: nothing that it left may be in the way."""
    yield
    for member in four.members:
        four.net.mend(member.name)
        member.start()
    eventually(lambda: agreed(four), within=TOLD_WITHIN)
    inside = next(member for member in four.members if not alone(member))
    for member in four.members:
        if alone(member):
            member.join(inside.token(member.name))
    everyone = [member.name for member in four.members]
    eventually(lambda: all(names(m) == everyone for m in four.members), within=TOLD_WITHIN)
    eventually(
        lambda: {row["status"] for row in lxc_json(inside, "cluster", "list")} == {"Online"}, within=20
    )
    eventually(lambda: len(inside.ask("GET", "/1.0/gpus")) == len(four.members), within=20)


def agreed(cluster: Cluster) -> None:
    """Whoever is not alone knows exactly the others that are not: all who were removed know it by now."""
    inside = [member for member in cluster.members if not alone(member)]
    for member in inside:
        assert names(member) == [other.name for other in inside]


def alone(member: Member) -> bool:
    """Not so while it forgets: then it answers nobody."""
    try:
        return not member.ask("GET", "/1.0/cluster")["enabled"]
    except Refused:
        return False


def names(member: Member) -> list[str]:
    return sorted(row["server_name"] for row in lxc_json(member, "cluster", "list"))


def secrets(cluster: Cluster) -> list[bytes]:
    """Lines of the cluster's private key, as a member of it has them."""
    inside = next(member for member in cluster.members if not alone(member))
    identity = json.loads((inside.folder / "cluster" / "identity.json").read_text())
    return [line.encode() for line in identity["certificate_key"].splitlines() if "-----" not in line]


def begins_anew(cluster: Cluster, victim: Member) -> None:
    """Once it was told: it is alone, has nothing of the cluster, and listens where it did."""
    eventually(lambda: alone(victim), within=TOLD_WITHIN)
    for kind in ("instances", "images", "storage-pools", "certificates"):
        assert victim.ask("GET", f"/1.0/{kind}") == [], kind
    assert [row["name"] for row in victim.ask("GET", "/1.0/networks?recursion=1") if row["managed"]] == []
    assert victim.ask("GET", "/1.0")["config"] == {"core.https_address": victim.address}
    key = secrets(cluster)
    assert [path for path in victim.folder.rglob("*") if any(line in content(path) for line in key)] == []


def content(path: Path) -> bytes:
    """Nothing of what is no plain file, or just goes."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


def test_a_member_in_use_is_not_removed_and_an_empty_one_is_at_once(four: Cluster) -> None:
    first, second, third, victim = four.members
    lxc(first, "init", "busybox", "c1", "--target", victim.name)
    refused = lxc_try(second, "cluster", "remove", victim.name)
    assert "Node still has the following instances: c1" in refused.err
    assert names(second) == ["n1", "n2", "n3", "n4"]
    lxc(third, "delete", "c1")
    lxc(second, "cluster", "remove", victim.name)
    assert names(first) == names(second) == names(third) == ["n1", "n2", "n3"]
    assert len(first.ask("GET", "/1.0/gpus")) == 3
    for row in [first.ask("GET", "/1.0/storage-pools/default"), first.ask("GET", "/1.0/networks/lxdbr0")]:
        assert row["locations"] == ["n1", "n2", "n3"]
    begins_anew(four, victim)


def test_a_dead_member_goes_by_force_with_its_instances_and_is_told_when_it_is_back(four: Cluster) -> None:
    first, second, victim, fourth = four.members
    lxc(first, "launch", "busybox", "c1", "--target", victim.name)
    lxc(first, "launch", "busybox", "c2", "--target", fourth.name)
    victim.kill()
    eventually(lambda: "Offline" in str(lxc_json(second, "cluster", "list")), within=10)
    assert "only be removed by force" in lxc_try(second, "cluster", "remove", victim.name).err
    lxc(second, "cluster", "remove", victim.name, "--force", "--yes")
    assert names(first) == ["n1", "n2", "n4"]
    assert [row["name"] for row in lxc_json(fourth, "list")] == ["c2"]
    lxc(second, "delete", "c2", "--force")
    # It is told before it knows what runs here, and crashes when it begins anew.
    victim.start(LXDPY_FAILPOINTS="host.looked-at=delay:2,identity.saved=crash", wait=False)
    eventually(lambda: victim.pid() is None, within=TOLD_WITHIN)
    victim.start()
    begins_anew(four, victim)
    eventually(lambda: not any("c1" in command(pid) for pid in four.net.processes(victim.name)), within=10)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_the_leader_removes_itself_and_the_others_go_on(four: Cluster) -> None:
    first = four.members[0]
    roles = {row["server_name"]: row["roles"] for row in lxc_json(first, "cluster", "list")}
    leader = next(m for m in four.members if "database-leader" in roles[m.name])
    lxc(leader, "cluster", "remove", leader.name, "--force", "--yes")
    rest = [member for member in four.members if member is not leader]
    everyone = [member.name for member in rest]
    for member in rest:
        eventually(lambda member=member: names(member) == everyone, within=AGREED)  # type: ignore[misc]
        lxc(member, "profile", "set", "default", "user.by", member.name)
    begins_anew(four, leader)


def test_a_member_that_cannot_hear_is_removed_by_force_and_told_when_it_can(four: Cluster) -> None:
    """Frozen, or cut off: it does not know, answers what it knew, and can change nothing."""
    first, frozen, cut, _ = four.members
    frozen.freeze()
    eventually(lambda: "Offline" in str(lxc_json(first, "cluster", "list")), within=10)
    lxc(first, "cluster", "remove", frozen.name, "--force", "--yes")
    frozen.thaw()
    begins_anew(four, frozen)
    four.net.cut(cut.name)
    eventually(lambda: "Offline" in str(lxc_json(first, "cluster", "list")), within=10)
    lxc(first, "cluster", "remove", cut.name, "--force", "--yes")
    assert names(first) == ["n1", "n4"]
    assert names(cut) == ["n1", "n3", "n4"]
    with pytest.raises(Refused):
        cut.ask("POST", "/1.0/profiles", {"name": "mine"})
    four.net.mend(cut.name)
    begins_anew(four, cut)
    assert "/1.0/profiles/mine" not in first.ask("GET", "/1.0/profiles")


def test_who_is_back_hears_of_the_one_that_came_meanwhile_and_leads(four: Cluster) -> None:
    """Else it would refuse the leader as a stranger, and so never get the log that tells of it."""
    first, second, away, newcomer = four.members
    lxc(first, "config", "set", "cluster.offline_threshold", "6")
    lxc(first, "cluster", "remove", newcomer.name, "--force", "--yes")
    eventually(lambda: alone(newcomer), within=TOLD_WITHIN)
    eventually(lambda: names(away) == ["n1", "n2", "n3"], within=AGREED)
    away.kill()
    newcomer.join(first.token(newcomer.name))
    eventually(lambda: votes(second) == ["n1", "n2", "n4"], within=30)
    for leader, other in [(first, second), (second, first)] * 2:
        if leads(first) == leader.name:
            other.freeze()  # so there is one only to hand on to
            leader.stop()
            other.thaw()
            leader.start()
            eventually(lambda: leads(first) != "", within=AGREED)
    assert leads(first) == newcomer.name
    away.start()
    eventually(lambda: names(away) == ["n1", "n2", "n3", "n4"], within=AGREED)
    lxc(away, "profile", "set", "default", "user.by", away.name)
    lxc(first, "config", "unset", "cluster.offline_threshold")


def leads(member: Member) -> str:
    """The leader's name, as that member knows it; "" while there is none."""
    rows = lxc_json(member, "cluster", "list")
    return next((row["server_name"] for row in rows if "database-leader" in row["roles"]), "")


def test_of_two_members_a_dead_one_can_be_removed_and_the_last_one_cannot(four: Cluster) -> None:
    first, second, third, fourth = four.members
    for gone in (third, fourth):
        lxc(first, "cluster", "remove", gone.name, "--force", "--yes")
    eventually(lambda: votes(first) == ["n1"] or votes(first) == ["n2"], within=15)
    voter, standby = (first, second) if votes(first) == ["n1"] else (second, first)
    standby.kill()
    eventually(lambda: "Offline" in str(lxc_json(voter, "cluster", "list")), within=10)
    failed = lxc_try(voter, "cluster", "remove", voter.name, "--force", "--yes")
    assert "No other member is online" in failed.err
    lxc(voter, "cluster", "remove", standby.name, "--force", "--yes")
    assert names(voter) == [voter.name]
    failed = lxc_try(voter, "cluster", "remove", voter.name, "--force", "--yes")
    assert "Node is the only node in the cluster" in failed.err
    standby.start()
    begins_anew(four, standby)


def votes(member: Member) -> list[str]:
    return [row["server_name"] for row in lxc_json(member, "cluster", "list") if "database" in row["roles"]]
