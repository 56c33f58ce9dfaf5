"""A GPU is granted once, to whoever asked first, through whichever member; and nobody sees another's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from integration.gpu_history import FREE, Users
from integration.harness import Done, caught_up, eventually, lxc, lxc_json, lxc_try
from integration.instances import emptied
from lxdpy.dev.api import Refused
from lxdpy.dev.faults.links import Links
from lxdpy.dev.history import complaints
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
LAUNCHES = 40
GPUS = 6  # three members, two each


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    eventually(partial(emptied, cluster.members[0]), within=90)


def gpus(member: Member) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = caught_up(member).ask("GET", "/1.0/gpus?recursion=1")
    return rows


def holders(member: Member) -> list[tuple[str, str]]:
    """GPU and instance, a pair for each hold."""
    return [(gpu["uuid"], hold["instance"]) for gpu in gpus(member) for hold in gpu["holders"]]


def test_forty_launches_through_three_members_get_six_gpus(cluster: Cluster) -> None:
    def launch(number: int) -> Done:
        return lxc_try(
            cluster.members[number % 3], "launch", "busybox", f"c{number}", "-c", "limits.gpu=1", timeout=240
        )

    with ThreadPoolExecutor(LAUNCHES) as threads:
        done = list(threads.map(launch, range(LAUNCHES)))
    won = [f"c{number}" for number, run in enumerate(done) if run.status == 0]
    assert len(won) == GPUS, [run.err for run in done]
    for refused in (run for run in done if run.status):
        assert "GPU" in refused.err
        assert "n1" in refused.err, "the reason names the members"
    for member in cluster.members:
        held = holders(member)
        assert len({gpu for gpu, _ in held}) == GPUS, "a GPU is held twice"
        assert sorted(name for _, name in held) == sorted(won)
    assert sorted(row["name"] for row in lxc_json(caught_up(cluster.members[1]), "list")) == sorted(won)


def test_five_spread_two_two_one_and_a_stop_frees_for_the_next(cluster: Cluster) -> None:
    one, two, three = cluster.members
    for number in range(GPUS):
        lxc(cluster.members[number % 3], "launch", "busybox", f"c{number}", "-c", "limits.gpu=1")
        if number == 4:
            places = sorted(row["location"] for row in lxc_json(caught_up(one), "list"))
            assert sorted(places.count(member.name) for member in cluster.members) == [1, 2, 2]
    refused = lxc_try(two, "launch", "busybox", "late", "-c", "limits.gpu=1")
    assert refused.status
    assert all(member.name in refused.err for member in cluster.members), refused.err
    lxc(three, "stop", "c0", "--force")
    lxc(two, "launch", "busybox", "late", "-c", "limits.gpu=1")
    assert "late" in {name for _, name in holders(one)}


def test_an_instance_sees_its_own_gpu_and_no_other(cluster: Cluster) -> None:
    one, two, three = cluster.members
    lxc(two, "launch", "busybox", "mine", "-c", "limits.gpu=1", "--target", one.name)
    lxc(two, "launch", "busybox", "none", "--target", one.name)

    def nodes(name: str) -> list[str]:
        found = lxc(three, "exec", name, "--", "sh", "-c", "ls /dev | grep -E '^nvidia[0-9]' || true")
        return found.split()

    [node] = nodes("mine")
    assert nodes("none") == []
    other = {"nvidia0": "nvidia1", "nvidia1": "nvidia0"}[node]
    # ENXIO: the node is there and the device cgroup lets it through; there is only no driver behind it.
    assert "No such device or address" in opened(three, "mine", f"/dev/{node}")
    assert "No such file" in opened(three, "mine", f"/dev/{other}")
    made = lxc_try(three, "exec", "mine", "--", "mknod", "/tmp/other", "c", "195", other[-1])
    assert made.status
    assert "not permitted" in made.err


def opened(member: Member, name: str, path: str) -> str:
    return lxc_try(member, "exec", name, "--", "dd", f"if={path}", "of=/dev/null", "count=1").err


def test_a_kind_of_gpu_is_matched_as_a_device_too(cluster: Cluster) -> None:
    one, two, _ = cluster.members
    model = gpus(one)[0]["model"]
    lxc(two, "init", "busybox", "c1")
    lxc(two, "config", "device", "add", "c1", "gpu0", "gpu", "count=2", f'match=model~"{model}"')
    lxc(two, "start", "c1")
    assert [name for _, name in holders(one)] == ["c1", "c1"]
    lxc(two, "delete", "c1", "--force")
    assert holders(one) == []


def test_grants_survive_a_crash_of_the_member(cluster: Cluster) -> None:
    one, two, _ = cluster.members
    lxc(two, "launch", "busybox", "c1", "-c", "limits.gpu=2", "--target", one.name)
    before = holders(two)
    one.kill()
    one.start()
    eventually(lambda: one.ask("GET", "/1.0/instances/c1")["status"] == "Running", within=60)
    assert holders(two) == before
    refused = lxc_try(two, "launch", "busybox", "c2", "-c", "limits.gpu=1", "--target", one.name)
    assert refused.status


def leader(cluster: Cluster) -> Member:
    """As the others know it by now."""
    for member in cluster.members:
        with suppress(Refused):
            for row in member.ask("GET", "/1.0/cluster/members?recursion=1"):
                if "database-leader" in row["roles"]:
                    return next(one for one in cluster.members if one.name == row["server_name"])
    raise AssertionError("nobody leads")


def more(users: Users, number: int) -> None:
    """Go on until so many more were granted."""
    wanted = users.takes() + number
    eventually(lambda: users.takes() >= wanted, within=90)


def test_the_holders_of_each_gpu_are_linearizable_though_leaders_die_and_are_cut_off(
    cluster: Cluster,
) -> None:
    one, _, _ = cluster.members
    devices = [gpu["uuid"] for gpu in gpus(one)][:4]
    users = Users(cluster.members, devices, number=8, seed="30")
    users.start()
    links = Links(cluster.net)
    try:
        for trouble in ("kill", "cut off", "kill", "cut off"):
            more(users, 4)
            victim = eventually(partial(leader, cluster), within=60)
            others = [member for member in cluster.members if member is not victim]
            if trouble == "kill":
                victim.kill()
            else:
                links.part([victim.name], [member.name for member in others])
            more(users, 2)
            victim.start()
            links.heal()
    finally:
        links.heal()
        users.stop()
    for member in cluster.members:
        for device in devices:
            users.read(member, device)
    assert list(complaints(users.calls, initial=FREE)) == []
    assert users.takes() > 20
    assert len([call for call in users.calls if call.kind == "read"]) > 40
    assert any(call.outcome == "unknown" for call in users.calls), "nobody was hurt"
