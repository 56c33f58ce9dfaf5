"""Five members: who votes, who is there, and what operators do with them, by the stock client anywhere."""

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox
from lxdpy.dev.api import Refused
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

THRESHOLD = 6  # seconds, cluster.offline_threshold: short, as tests wait for half of it
SETTLED = 15.0  # seconds for votes to be where they should, on a busy host
UNBLOCKED = (
    5.0  # seconds in which a command must end that has to do with a dead member; under 2 on an idle host
)


@pytest.fixture(scope="module")
def five() -> Iterator[Cluster]:
    with running(members=5, gpus=0) as made:
        first = made.members[0]
        busybox(first)
        lxc(first, "config", "set", "cluster.offline_threshold", str(THRESHOLD))
        yield made


@pytest.fixture(autouse=True)
def whole(five: Cluster) -> Iterator[None]:
    yield
    for member in five.members:
        five.net.mend(member.name)
        member.start()
    eventually(lambda: {row["status"] for row in listed(five.members[0])} == {"Online"}, within=30)


def listed(member: Member) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = lxc_json(member, "cluster", "list")
    return rows


def roles(member: Member) -> dict[str, str]:
    """Of each member: l for the leader, v for a voter, s for a stand-by, - for a spare."""

    def letter(held: str) -> str:
        return (
            "l" if "database-leader" in held else "s" if "database-standby" in held else "v" if held else "-"
        )

    return {row["server_name"]: letter(row["roles"]) for row in listed(member)}


def votes(member: Member) -> str:
    return "".join(sorted(roles(member).values()))


def leader(cluster: Cluster) -> Member:
    """As some running member says."""

    def found() -> Member | None:
        for member in cluster.members:
            if member.pid() is not None:
                names = [name for name, role in roles(member).items() if role == "l"]
                return next((m for m in cluster.members if m.name in names), None)
        return None

    made = eventually(found, within=SETTLED)
    assert made is not None
    return made


def holder(cluster: Cluster, role: str) -> Member:
    """Some member with that role, but not the first, through which tests speak."""
    held = roles(cluster.members[0])
    return next(member for member in cluster.members[1:] if held[member.name] == role)


def others(cluster: Cluster, *without: Member) -> list[Member]:
    return [member for member in cluster.members if member not in without]


def seen_by_all(cluster: Cluster, status: str, victim: Member) -> bool:
    told = [
        next(row for row in listed(member) if row["server_name"] == victim.name)
        for member in others(cluster, victim)
    ]
    return all(row["status"] == status for row in told)


def test_three_vote_two_stand_by_and_the_numbers_can_be_changed(five: Cluster) -> None:
    second, fourth = five.members[1], five.members[3]
    eventually(lambda: votes(fourth) == "lssvv", within=SETTLED)
    lxc(second, "config", "set", "cluster.max_voters", "5")
    eventually(lambda: votes(fourth) == "lvvvv", within=SETTLED)
    assert "odd number" in lxc_try(second, "config", "set", "cluster.max_voters", "4").err
    lxc(second, "config", "set", "cluster.max_voters", "3")
    lxc(second, "config", "set", "cluster.max_standby", "1")
    eventually(lambda: votes(fourth) == "-lsvv", within=SETTLED)
    lxc(second, "config", "unset", "cluster.max_standby")
    eventually(lambda: votes(fourth) == "lssvv", within=SETTLED)


def test_votes_move_to_the_failure_domains_that_have_none(five: Cluster) -> None:
    first = five.members[0]
    eventually(lambda: votes(first) == "lssvv", within=SETTLED)
    standing_by = [name for name, role in roles(first).items() if role == "s"]
    for domain, name in zip(("x", "y"), standing_by, strict=True):
        shown = lxc(first, "cluster", "show", name).replace(
            "failure_domain: default", f"failure_domain: {domain}"
        )
        lxc(five.members[1], "cluster", "edit", name, stdin=shown)
    eventually(lambda: {roles(first)[name] for name in standing_by} == {"v"}, within=SETTLED)
    for name in standing_by:
        shown = lxc(first, "cluster", "show", name).replace("failure_domain: ", "failure_domain: default # ")
        lxc(five.members[2], "cluster", "edit", name, stdin=shown)
    assert {row["failure_domain"] for row in listed(first)} == {"default"}


def test_members_are_described_configured_and_renamed_anywhere(five: Cluster) -> None:
    first, second, third, fourth, fifth = five.members
    lxc(first, "cluster", "set", "n5", "user.rack=7", "scheduler.instance=manual")
    assert lxc(second, "cluster", "get", "n5", "user.rack").strip() == "7"
    lxc(third, "cluster", "rename", "n5", "last")
    assert lxc(fifth, "cluster", "get", "last", "scheduler.instance").strip() == "manual"
    assert lxc_json(fourth, "cluster", "list")[0]["server_name"] == "last"
    lxc(fifth, "cluster", "rename", "last", "n5")
    lxc(fourth, "cluster", "unset", "n5", "scheduler.instance")
    lxc(fourth, "cluster", "role", "add", "n5", "event-hub")
    assert "- event-hub" in lxc(second, "cluster", "show", "n5")
    lxc(first, "cluster", "role", "remove", "n5", "event-hub")
    refusals = (
        (("rename", "n5", "n1"), "already has a member with name: n1"),
        (("rename", "none", "n9"), "Member not found: none"),
        (("set", "n5", "scheduler.instance=never"), '"never" is not one of all, group, manual'),
        (("set", "n5", "colour=red"), "Unknown configuration key: colour"),
        (("role", "add", "n5", "king"), 'Invalid cluster role "king"'),
    )
    for words, said in refusals:
        assert said in lxc_try(second, "cluster", *words).err


def test_groups_and_the_scheduler_setting_decide_where_instances_go(five: Cluster) -> None:
    first, second, third, fourth, _ = five.members
    lxc(first, "cluster", "group", "create", "fast")
    lxc(second, "cluster", "group", "assign", "n2", "fast,default")
    lxc(third, "cluster", "group", "assign", "n3", "fast")
    lxc(fourth, "cluster", "group", "rename", "fast", "quick")
    assert set(lxc(first, "cluster", "group", "show", "quick").split()) >= {"n2", "n3"}
    lxc(first, "cluster", "set", "n2", "scheduler.instance=manual")
    lxc(first, "cluster", "set", "n3", "scheduler.instance=group")
    for name, target in (("g1", "@quick"), ("g2", "@quick"), ("g3", "n2")):
        lxc(fourth, "init", "busybox", name, "--target", target)
    for number in range(4, 8):
        lxc(second, "init", "busybox", f"g{number}")
    rows = {row["name"]: row["location"] for row in lxc_json(third, "list")}
    assert [rows[name] for name in ("g1", "g2", "g3")] == ["n3", "n3", "n2"]
    assert {rows[f"g{number}"] for number in range(4, 8)} == {"n1", "n4", "n5"}
    assert "Cluster group not found: none" in lxc_try(first, "init", "busybox", "--target", "@none").err
    lxc(second, "delete", *rows)
    for name in ("n2", "n3"):
        lxc(first, "cluster", "unset", name, "scheduler.instance")
        lxc(first, "cluster", "group", "assign", name, "default")
    lxc(third, "cluster", "group", "delete", "quick")


def test_a_lost_voter_is_replaced_within_the_threshold_and_comes_back_without_a_vote(five: Cluster) -> None:
    first, victim = five.members[0], holder(five, "v")
    victim.kill()
    eventually(lambda: seen_by_all(five, "Offline", victim), within=SETTLED)
    assert "No heartbeat for" in str(listed(first))
    eventually(lambda: roles(first)[victim.name] == "-", within=THRESHOLD + SETTLED)
    assert votes(first) == "-lsvv"
    other = holder(five, "s")
    other.stop()
    other.start()  # it was told, as it did not hear the victim itself
    eventually(lambda: silence(other, victim) > THRESHOLD / 2, within=SETTLED)
    victim.start()
    eventually(lambda: seen_by_all(five, "Online", victim), within=SETTLED)
    eventually(lambda: votes(victim) == "lssvv", within=SETTLED)
    assert roles(victim)[victim.name] == "s"


def silence(member: Member, of: Member) -> float:
    """Seconds that the member says the other one has been silent for."""
    message = next(row["message"] for row in listed(member) if row["server_name"] == of.name)
    found = re.match(r"No heartbeat for (?:(\d+)m)?([0-9.]+)s", message)
    return float(found[1] or 0) * 60 + float(found[2]) if found else 0.0


@contextmanager
def dead(cluster: Cluster, victim: Member, how: str) -> Iterator[None]:
    if how == "killed":
        victim.kill()
    elif how == "frozen":
        victim.freeze()
    else:
        cluster.net.cut(victim.name)
    try:
        yield
    finally:
        cluster.net.mend(victim.name)
        if how == "frozen":
            victim.thaw()
        victim.start()


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off"])
def test_nobody_waits_for_a_dead_member(five: Cluster, how: str) -> None:
    victim = holder(five, "s")
    via = others(five, victim)[2]
    eventually(lambda: seen_by_all(five, "Online", victim), within=SETTLED)
    lxc(via, "init", "busybox", "theirs", "--target", victim.name)
    with dead(five, victim, how):
        eventually(lambda: seen_by_all(five, "Offline", victim), within=SETTLED)
        fine = (
            ("list",), ("cluster", "list"), ("cluster", "show", victim.name), ("operation", "list"),
            ("image", "list"), ("storage", "volume", "list", "default"),
            ("profile", "set", "default", "user.seen", how), ("init", "busybox", "ours"), ("delete", "ours"),
        )  # fmt: skip
        for words in fine:
            lxc(via, *words, timeout=UNBLOCKED)
        for words in (("start", "theirs"), ("info", "--target", victim.name), ("exec", "theirs", "true")):
            failed = lxc_try(via, *words, timeout=UNBLOCKED)
            assert failed.status, words
            assert f"Member {victim.name} is not reachable" in failed.err
    eventually(lambda: seen_by_all(five, "Online", victim), within=SETTLED)
    row = next(row for row in lxc_json(via, "list") if row["name"] == "theirs")
    assert row["status"] == "Stopped", "what was said not to have arrived had"
    lxc(via, "delete", "theirs")


class Writer:
    """Writes through a member, one change after the other, until told to stop."""

    def __init__(self, via: Member) -> None:
        self.refused: list[str] = []
        self.written = 0
        self._via = via
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            try:
                self._via.ask("PATCH", "/1.0/profiles/default", {"config": {"user.n": str(number)}})
                self.written += 1
            except Refused as refusal:
                self.refused.append(str(refusal))
            time.sleep(0.01)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_leader_that_stops_hands_on_the_lead_and_no_write_is_refused(five: Cluster) -> None:
    stopping = leader(five)
    via = others(five, stopping)[0]
    with Writer(via) as writer:
        stopping.stop()
        assert leader(five) is not stopping
        stopping.start()
    assert writer.refused == []
    assert writer.written > 10


def test_an_evacuated_member_stops_its_instances_and_takes_none_until_it_is_restored(five: Cluster) -> None:
    first, second, third = five.members[:3]
    lxc(first, "launch", "busybox", "e1", "--target", "n3", "-c", "cluster.evacuate=stop")
    lxc(first, "init", "busybox", "e2", "--target", "n3", "-c", "cluster.evacuate=stop")
    lxc(second, "cluster", "evacuate", "n3", "--force")
    row = next(row for row in listed(third) if row["server_name"] == "n3")
    assert (row["status"], row["message"]) == ("Evacuated", "Unavailable due to maintenance")
    assert {row["name"]: row["status"] for row in lxc_json(first, "list")} == {
        "e1": "Stopped",
        "e2": "Stopped",
    }
    assert "evacuated" in lxc_try(first, "init", "busybox", "e3", "--target", "n3").err
    assert "Cluster member is evacuated" in lxc_try(second, "start", "e1").err
    assert "already evacuated" in lxc_try(second, "cluster", "evacuate", "n3", "--force").err
    third.stop()
    third.start()
    eventually(lambda: lxc(second, "info", "--target", "n3"), within=SETTLED)
    lxc(second, "cluster", "restore", "n3", "--force")
    assert {row["name"]: row["status"] for row in lxc_json(first, "list")} == {
        "e1": "Running",
        "e2": "Stopped",
    }
    assert "already restored" in lxc_try(second, "cluster", "restore", "n3", "--force").err
    lxc(second, "delete", "--force", "e1", "e2")
