"""Who finds no GPU free waits its turn, whoever dies meanwhile; groups are granted all or none."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any

import pytest

from integration.harness import caught_up, eventually, lxc, lxc_try
from integration.instances import emptied
from lxdpy.dev.api import Refused
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
GPUS = 6  # three members, two each
PATIENCE = 60.0  # seconds; a loaded machine elects and builds slowly


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    eventually(partial(emptied, cluster.members[0]), within=PATIENCE)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(16)
    yield pool
    pool.shutdown(wait=False, cancel_futures=True)


def queue(member: Member) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = member.ask("GET", "/1.0/gpu-queue?recursion=1")
    return rows


def names(member: Member) -> list[str]:
    return [name for row in queue(member) for name in row["instances"]]


def waiting(member: Member, wanted: list[str]) -> bool:
    return names(member) == wanted


def kept(member: Member, name: str) -> int:
    """How many GPUs are kept for whom it is the first of."""
    return sum(len(row["kept"]) for row in queue(member) if row["instances"][0] == name)


def holds(member: Member) -> list[dict[str, Any]]:
    """Each hold of a GPU, with the GPU's uuid; by when it began."""
    rows = member.ask("GET", "/1.0/gpus?recursion=1")
    found = [hold | {"uuid": gpu["uuid"], "member": gpu["member"]} for gpu in rows for hold in gpu["holders"]]
    return sorted(found, key=lambda hold: str(hold["since"]))


def holders(member: Member) -> set[str]:
    return {hold["instance"] for hold in holds(member)}


def holding(member: Member, wanted: list[str]) -> bool:
    return set(wanted) <= holders(member)


def empty(name: str, *, gpus: int = 1, wait: str = "", **more: str) -> dict[str, Any]:
    """The body of a create. It holds its GPUs until it is deleted, though it never runs."""
    config = {"limits.gpu": str(gpus), "gpu.hold": "always"} | ({"gpu.wait": wait} if wait else {})
    return {"name": name, "source": {"type": "none"}, "config": config | more}


def create(member: Member, body: dict[str, Any], query: str = "") -> Any:
    return member.ask("POST", f"/1.0/instances{query}", body, timeout=120)


def ask_behind(
    threads: ThreadPoolExecutor, member: Member, body: dict[str, Any], query: str = "", seen_by: Any = None
) -> Future[Any]:
    """Ask, and return once it waits."""
    first = body["name"] + ("-1" if query else "")
    asked = threads.submit(create, member, body, query)
    eventually(lambda: asked.done() or first in names(seen_by or member), within=PATIENCE)
    if asked.done():
        asked.result()
        raise AssertionError(f"{first} did not have to wait")
    return asked


def fill(cluster: Cluster, number: int = GPUS) -> list[str]:
    made = [f"h{place}" for place in range(number)]
    with ThreadPoolExecutor(number) as together:
        bodies = [(cluster.members[place % 3], empty(name)) for place, name in enumerate(made)]
        for done in [together.submit(create, member, body) for member, body in bodies]:
            done.result()
    return made


def leader(cluster: Cluster) -> Member:
    rows = cluster.members[0].ask("GET", "/1.0/cluster/members?recursion=1")
    name = next(row["server_name"] for row in rows if "database-leader" in row["roles"])
    return next(member for member in cluster.members if member.name == name)


def deleted(member: Member, name: str) -> bool:
    """Whether it is gone; to be asked again while nobody leads, say."""
    try:
        member.ask("DELETE", f"/1.0/instances/{name}", timeout=120)
    except Refused as refused:
        if refused.status != 404:
            raise
    return True


def over(member: Member, id: str) -> dict[str, Any]:
    row: dict[str, Any] = member.ask("GET", f"/1.0/operations/{id}/wait", timeout=120)
    return row


class Watch:
    """Looks at who holds what again and again, through whichever member lives."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.doubled: list[Any] = []
        self.looks = 0
        self.stop = Event()

    @contextmanager
    def running(self, threads: ThreadPoolExecutor) -> Iterator[None]:
        watching = threads.submit(self.run)
        try:
            yield
        finally:
            self.stop.set()
            watching.result()

    def run(self) -> None:
        while not self.stop.wait(0.1):
            for member in self.cluster.members:
                try:
                    found = [hold["uuid"] for hold in holds(member)]
                except (OSError, Refused):
                    continue
                self.looks += 1
                if len(set(found)) != len(found):
                    self.doubled.append(found)


def test_all_are_served_in_order_though_the_leader_and_who_was_asked_die(
    cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    fill(cluster)
    watch = Watch(cluster)
    with watch.running(threads):
        serve_in_order(cluster, threads)
    assert watch.doubled == []
    assert watch.looks > 10


def serve_in_order(cluster: Cluster, threads: ThreadPoolExecutor) -> None:
    late = [f"w{place}" for place in range(6)]
    for place, name in enumerate(late):
        ask_behind(threads, cluster.members[place % 3], empty(name, wait="10m"))
    dead = leader(cluster)
    one, other = (member for member in cluster.members if member is not dead)
    for member in (other, one):
        eventually(partial(waiting, member, late), within=PATIENCE)
    assert [row["position"] for row in queue(one)] == [1, 2, 3, 4, 5, 6]
    assert all("GPU" in row["reason"] and row["index"] for row in queue(one))
    dead.kill()
    spared = [hold["instance"] for hold in holds(one) if hold["member"] != dead.name]
    for served, holder in enumerate(spared[:3], 1):
        eventually(partial(deleted, one, holder), within=PATIENCE)
        eventually(partial(holding, one, late[:served]), within=PATIENCE)
        assert not set(late[served:]) & holders(one)
    dead.start()
    for holder in holders(one) - set(late):
        eventually(partial(deleted, other, holder), within=PATIENCE)
    eventually(lambda: holders(one) == set(late), within=PATIENCE)
    assert [hold["instance"] for hold in holds(one)] == late, "by when each was granted"
    eventually(
        lambda: {row["status"] for row in one.ask("GET", "/1.0/instances?recursion=1")} == {"Stopped"},
        within=PATIENCE,
    )
    eventually(lambda: queue(dead) == [], within=PATIENCE)  # it has yet to hear of all that


def test_who_waits_may_be_cancelled_and_runs_out_of_time(
    cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    one, two, three = cluster.members
    fill(cluster)
    waits = ask_behind(threads, one, empty("w1", wait="-1"))
    with pytest.raises(Refused, match="already exists"):
        create(two, empty("w1"))
    [row] = eventually(partial(queue, three), within=PATIENCE)
    assert "w1" in two.lxdpy("gpu", "queue")
    operation = three.ask("GET", f"/1.0/operations/{row['id']}")
    assert (operation["status"], operation["metadata"]["position"]) == ("Running", 1)
    assert operation["may_cancel"]
    lxc(three, "operation", "delete", row["id"])
    with pytest.raises(Refused, match="Operation cancelled"):
        waits.result(PATIENCE)
    assert over(two, row["id"])["status"] == "Cancelled"
    with pytest.raises(Refused, match=r"No GPUs came free in time.*0 of"):
        create(two, empty("w2", wait="1s"))
    eventually(lambda: queue(one) == [], within=PATIENCE)
    with pytest.raises(Refused, match="GPU"):
        create(three, empty("w3", gpus=3, wait="10m"))
    assert {row["name"] for row in one.ask("GET", "/1.0/instances?recursion=1")} == {
        f"h{n}" for n in range(6)
    }


def test_a_group_is_granted_all_or_none_at_once_or_later(
    cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    one, two, three = cluster.members
    create(one, empty("a", gpus=2), "?count=2")
    assert [hold["instance"] for hold in holds(caught_up(two))].count("a-1") == 2
    assert len(holds(two)) == 4
    with pytest.raises(Refused, match="GPU"):
        create(two, empty("b", gpus=2), "?count=2")
    rows = caught_up(three).ask("GET", "/1.0/instances?recursion=1")
    assert {row["name"] for row in rows} == {"a-1", "a-2"}
    waits = ask_behind(threads, three, empty("c", gpus=2, wait="10m"), "?count=3")
    eventually(lambda: kept(one, "c-1") == GPUS, within=PATIENCE)  # then nobody else gets any
    assert names(one) == ["c-1", "c-2", "c-3"]
    lxc(two, "delete", "a-1")
    assert holders(two) == {"a-2"}
    with pytest.raises(Refused, match=r"the queue|free"):
        create(two, empty("d", gpus=2))
    lxc(two, "delete", "a-2")
    waits.result(PATIENCE)
    assert holders(caught_up(one)) == {"c-1", "c-2", "c-3"}
    assert len(holds(one)) == GPUS


def test_the_stock_client_waits_at_a_launch_and_for_a_group(
    cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    one, two, three = cluster.members
    fill(cluster)
    wish = ("-c", "limits.gpu=1", "-c", "gpu.wait=10m")
    launched = threads.submit(lxc_try, two, "launch", "busybox", "c1", *wish, timeout=120)
    eventually(lambda: names(three) == ["c1"], within=PATIENCE)
    body = json.dumps(empty("d", wait="10m"))
    several = threads.submit(
        lxc_try, three, "query", "--wait", "-X", "POST", "/1.0/instances?count=2", "-d", body, timeout=120
    )
    eventually(lambda: names(three) == ["c1", "d-1", "d-2"], within=PATIENCE)
    for holder in ("h0", "h1", "h2"):
        one.ask("DELETE", f"/1.0/instances/{holder}")
    assert launched.result(PATIENCE).status == 0, launched.result().err
    assert several.result(PATIENCE).status == 0, several.result().err
    assert {"c1", "d-1", "d-2"} <= holders(caught_up(two))
    assert caught_up(one).ask("GET", "/1.0/instances/c1")["status"] == "Running"


def test_a_start_waits_and_goes_on_after_its_member_was_killed(
    cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    one, two, three = cluster.members
    lxc(one, "init", "busybox", "c1", "-c", "gpu.wait=10m", "-c", "gpu.priority=1", "--target", three.name)
    lxc(two, "config", "device", "add", "c1", "cards", "gpu", "count=2")  # which may wait as limits.gpu may
    lxc(two, "start", "c1")
    lxc(two, "stop", "--force", "c1")
    create(one, empty("h", gpus=2), f"?target={three.name}")
    started = threads.submit(lxc_try, two, "start", "c1", timeout=120)
    eventually(lambda: names(one) == ["c1"], within=PATIENCE)
    assert lxc_try(one, "start", "c1").err.count("already waits")
    three.kill()
    three.start()
    assert names(one) == ["c1"]
    lxc(two, "delete", "h")
    eventually(lambda: one.ask("GET", "/1.0/instances/c1")["status"] == "Running", within=PATIENCE)
    assert started.result(PATIENCE).status == 0, started.result().err
    assert holders(caught_up(one)) == {"c1"}


def test_an_unpark_waits_its_turn_though_its_member_is_killed(
    cluster: Cluster, threads: ThreadPoolExecutor
) -> None:
    one, two, three = cluster.members
    lxc(one, "launch", "busybox", "c1", "-c", "limits.gpu=2", "--target", three.name)
    turn = partial(two.ask, "POST", "/1.0/instances/c1/gpu", timeout=120)
    turn({"action": "park"})
    create(one, empty("h", gpus=2), f"?target={three.name}")
    with pytest.raises(Refused, match="GPU"):
        turn({"action": "unpark"})
    with pytest.raises(Refused, match=r"gpu\.wait.*soon"):
        turn({"action": "unpark", "wait": "soon"})
    lxc(two, "config", "set", "c1", "gpu.wait=10m")
    cancelled = threads.submit(turn, {"action": "unpark"})
    [row] = eventually(partial(queue, one), within=PATIENCE)
    assert (row["action"], row["instances"], row["position"]) == ("unpark", ["c1"], 1)
    lxc(one, "operation", "delete", row["id"])
    with pytest.raises(Refused, match="cancelled"):
        cancelled.result(PATIENCE)
    asked = threads.submit(two.lxdpy, "gpu", "unpark", "c1", "--wait", "5m")
    eventually(lambda: names(one) == ["c1"], within=PATIENCE)
    three.kill()
    three.start()
    assert names(one) == ["c1"]
    lxc(two, "delete", "h")
    assert "has its GPUs" in asked.result(PATIENCE)
    assert holders(caught_up(one)) == {"c1"}
    assert "/dev/nvidia1" in lxc(two, "exec", "c1", "--", "sh", "-c", "ls /dev/nvidia?")


def test_what_starts_with_its_daemon_waits_its_turn_and_what_cannot_is_warned_of(cluster: Cluster) -> None:
    one, two, three = cluster.members
    create(one, empty("h", gpus=2), f"?target={three.name}")
    for name in ("waits", "fails"):
        lxc(one, "init", "busybox", name, "--target", three.name, "-c", "boot.autostart=true")
    lxc(one, "config", "set", "waits", "limits.gpu=1", "gpu.wait=10m")
    lxc(one, "config", "set", "fails", "limits.gpu=1")
    three.kill()
    three.start()
    eventually(lambda: names(one) == ["waits"], within=PATIENCE)
    eventually(lambda: warned(two) == {"fails"}, within=PATIENCE)
    one.ask("PATCH", "/1.0/instances/fails", {"config": {"limits.gpu": ""}})
    three.kill()
    three.start()
    eventually(lambda: one.ask("GET", "/1.0/instances/fails")["status"] == "Running", within=PATIENCE)
    eventually(lambda: warned(two) == set(), within=PATIENCE)
    assert names(one) == ["waits"], "still, and once"
    lxc(two, "delete", "h")
    eventually(lambda: one.ask("GET", "/1.0/instances/waits")["status"] == "Running", within=PATIENCE)
    assert holders(one) == {"waits"}


def warned(member: Member) -> set[str]:
    """Instances that there is a warning of that they could not be started with their host."""
    rows = member.ask("GET", "/1.0/warnings?recursion=1")
    kind = "Failed to autostart instance"
    return {
        row["entity_url"].rpartition("/")[2]
        for row in rows
        if row["type"] == kind and row["status"] != "resolved"
    }
