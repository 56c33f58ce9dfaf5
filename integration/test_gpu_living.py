"""GPUs of containers that live: taken and given while programs use them, cards that come back, a fence.

As in test_gpu_isolation, what a container may open is told by errno. Where a program has to have a card open,
the card's file is one that opens: that of /dev/full.
"""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from integration import guest
from integration.harness import caught_up, eventually, lxc, lxc_try, running
from integration.instances import busybox, clear, instance, sh, state
from integration.test_gpu_isolation import card, files, gpus, holders, launched, opened, seen, tried
from lxdpy.dev.api import Refused
from lxdpy.dev.faults.links import Links
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ONE = '- {vendor: nvidia, uuid: GPU-1, pci: "0000:01:00.0"}\n'
TWO = '- {vendor: nvidia, uuid: GPU-2, pci: "0000:02:00.0"}\n'
REST = """\
- {vendor: amd, uuid: "a000000000000001", pci: "0000:03:00.0"}
- {vendor: amd, uuid: "a000000000000002", pci: "0000:04:00.0"}
- {vendor: nvidia, uuid: GPU-cut, pci: "0000:06:00.0", mig: [1g.5gb, 1g.5gb]}
"""
SOON = 60.0  # seconds; members look at their cards every 5, and the machine may be busy
FULL = os.makedev(1, 7)  # a device file that opens, and that nobody has open
LEASE = 5  # seconds, the shortest there may be


def cards(*lines: str) -> str:
    return "gpus:\n" + "".join(lines)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Cards of all kinds on n1, one of NVIDIA's on n3."""
    with running(members=3, gpus=1) as made:
        one, two, _ = made.members
        busybox(two)
        one.gpus.write_text(cards(ONE, TWO, REST))
        eventually(lambda: {"GPU-2", "GPU-cut"} <= gpus(two).keys(), within=SOON)
        yield made


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    clear(cluster.members[1])
    written = cluster.members[0].gpus
    if written.read_text() != cards(ONE, TWO, REST):  # else the files would be made anew at any time
        written.write_text(cards(ONE, TWO, REST))
    eventually(lambda: states(cluster.members[1]) <= {"free", "partitioned"}, within=SOON)


def states(member: Member) -> set[str]:
    return {gpu["state"] for gpu in gpus(member).values()}


def config(member: Member, name: str) -> dict[str, str]:
    found: dict[str, str] = instance(caught_up(member), name)["config"]
    return found


def use(member: Member, name: str, path: str) -> None:
    """A program in the container opens the file and keeps it."""
    sh(member, name, f"sleep 1000 < {path} > /dev/null 2>&1 &")


def users(member: Member, name: str) -> int:
    return sh(member, name, "ps").count("sleep 1000")


def made_to_open(cluster: Cluster, name: str) -> Iterator[None]:
    """The file of a card of n1, below /dev, is one that opens."""
    [dev] = [path for path in cluster.members[0].folder.glob("**/root/dev") if path.is_dir()]
    number = (dev / name).stat().st_rdev
    for rdev in (FULL, number):
        (dev / name).unlink()
        os.mknod(dev / name, stat.S_IFCHR | 0o666, rdev)
        (dev / name).chmod(0o666)
        if rdev == FULL:
            yield


@pytest.fixture
def living(cluster: Cluster) -> Iterator[None]:
    yield from made_to_open(cluster, "nvidia0")


def test_a_card_that_a_program_uses_is_given_to_nobody_else(cluster: Cluster, living: None) -> None:
    _, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-1")
    use(three, "c1", "/dev/nvidia0")
    eventually(lambda: users(two, "c1") == 1, within=SOON)
    with pytest.raises(Failed, match="in use by sleep"):
        two.lxdpy("gpu", "park", "c1")
    refused = lxc_try(two, "config", "unset", "c1", "limits.gpu")
    assert refused.status
    assert "in use by sleep" in refused.err
    assert (holders(three, "GPU-1"), opened(two, "c1", "nvidia0")) == (["c1"], ""), "nothing has changed"
    assert "volatile.gpu_parked" not in config(two, "c1")
    three.lxdpy("gpu", "park", "--force", "c1")
    assert (holders(three, "GPU-1"), users(two, "c1")) == ([], 0)
    assert opened(two, "c1", "nvidia0") == "ENOENT"
    assert instance(two, "c1")["status"] == "Running"


def test_a_lease_that_ends_takes_the_card_from_who_uses_it_after_a_warning(
    cluster: Cluster, living: None
) -> None:
    _, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-1", "-c", "gpu.lease=60s")
    use(three, "c1", "/dev/nvidia0")
    eventually(lambda: users(two, "c1") == 1, within=SOON)
    with guest.listen(three, "c1") as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline().startswith(b"HTTP/1.1 200")  # it is heard from here on
        lxc(two, "config", "set", "c1", "gpu.lease=1s")
        eventually(lambda: config(two, "c1").get("volatile.gpu_parked") == "lease", within=SOON)
        told = next(line for line in inside.stdout if b"lease-ending" in line)
        assert b'"type":"gpu"' in told
        inside.kill()
    assert (users(two, "c1"), opened(two, "c1", "nvidia0")) == (0, "ENOENT")


def test_what_is_put_without_the_daemons_notes_does_not_unpark(cluster: Cluster) -> None:
    _, two, _ = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-1")
    two.lxdpy("gpu", "park", "c1")
    row = instance(two, "c1")
    own = {key: value for key, value in row["config"].items() if not key.startswith("volatile.")}
    body = {key: row[key] for key in ("architecture", "devices", "profiles", "ephemeral")}
    two.ask("PUT", "/1.0/instances/c1", body | {"config": own | {"user.x": "y"}, "description": "d"})
    assert config(two, "c1")["user.x"] == "y"
    assert (holders(two, "GPU-1"), seen(cluster, "c1")) == ([], set())
    two.lxdpy("gpu", "unpark", "c1")
    assert holders(two, "GPU-1") == ["c1"]


NVIDIA = {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}


@pytest.mark.parametrize(
    ("options", "own"),
    [
        (["match=uuid=GPU-2", "sharing=shared", "memory=4GiB"], card("0000:02:00.0") | NVIDIA),
        (["match=uuid=GPU-2"], card("0000:02:00.0") | NVIDIA),
        (["match=vendor=amd"], card("0000:03:00.0") | {"kfd"}),
        (["pci=0000:04:00.0"], card("0000:04:00.0") | {"kfd"}),
        (["gputype=mig", "mig.profile=1g.5gb"], None),
    ],
)
def test_each_kind_comes_to_a_running_container_goes_parks_and_comes_again(
    cluster: Cluster, options: list[str], own: set[str] | None
) -> None:
    """`own` None: a MIG device, of whose files those of two capabilities are told apart by who holds them."""
    _, two, three = cluster.members
    launched(cluster, "c1")
    there = files(cluster.members[0])
    lxc(two, "config", "device", "add", "c1", "more", "gpu", *options)
    for again in range(2):
        if again:
            two.lxdpy("gpu", "park", "c1")
            assert seen(cluster, "c1") == set()
            three.lxdpy("gpu", "unpark", "c1")
        found = seen(cluster, "c1")
        if own is None:
            assert len([path for path in found if path.startswith("nvidia-caps/")]) == 2
            assert found >= NVIDIA
        else:
            assert found == own
        assert tried(three, "c1", there) == {path: "ENXIO" if path in found else "ENOENT" for path in there}
    lxc(three, "config", "device", "remove", "c1", "more")
    assert tried(two, "c1", there) == dict.fromkeys(there, "ENOENT")
    assert states(two) <= {"free", "partitioned"}


def test_who_is_refused_has_nothing_of_it(cluster: Cluster) -> None:
    _, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-2")
    launched(cluster, "c2")
    before = instance(caught_up(three), "c2")
    for options in (
        ["match=uuid=GPU-2"],
        ["match=uuid=GPU-2", "sharing=shared"],
        ["pci=0000:02:00.0"],
        ["gputype=mig", "mig.profile=1g.5gb", "count=3"],
        ["match=vendor=amd", "count=3"],
    ):
        refused = lxc_try(two, "config", "device", "add", "c2", "more", "gpu", *options)
        assert refused.status, options
        after = instance(caught_up(three), "c2")
        assert (after["devices"], after["config"]) == (before["devices"], before["config"])
        assert seen(cluster, "c2") == set()
    assert holders(three, "GPU-2") == ["c1"]
    assert opened(two, "c1", "nvidia1") == "ENXIO"


def test_a_lost_card_comes_back_under_another_number_to_its_holder_alone(cluster: Cluster) -> None:
    one, two, three = cluster.members
    for number in (1, 2):
        launched(cluster, f"c{number}", "-c", "limits.gpu=1", "-c", f"gpu.match=uuid=GPU-{number}")
    assert (seen(cluster, "c2") & {"nvidia0", "nvidia1"}) == {"nvidia1"}
    pid = state(two, "c2")["pid"]
    one.gpus.write_text(cards(REST))
    eventually(lambda: [gpus(two)[f"GPU-{n}"]["state"] for n in (1, 2)] == ["missing"] * 2, within=SOON)
    for number in (1, 2):
        [hold] = gpus(three)[f"GPU-{number}"]["holders"]
        assert (hold["instance"], hold["degraded"]) == (f"c{number}", True)
    assert "c2 (degraded)" in three.lxdpy("gpu", "list")
    one.gpus.write_text(cards(TWO, REST))  # which is nvidia0 now
    eventually(lambda: seen(cluster, "c2") & {"nvidia0", "nvidia1"} == {"nvidia0"}, within=SOON)
    eventually(lambda: "nvidia0" not in sh(two, "c1", "ls /dev"), within=SOON)
    assert opened(two, "c2", "nvidia0") == "ENXIO"
    one.gpus.write_text(cards(ONE, TWO, REST))
    eventually(lambda: opened(two, "c1", "nvidia1") == "ENXIO", within=SOON)
    assert opened(two, "c2", "nvidia1") == "ENOENT"
    eventually(lambda: whole(three) == {"c1", "c2"}, within=SOON)  # files come first
    assert state(two, "c2")["pid"] == pid
    sh(two, "c2", "reboot -f &")
    eventually(lambda: state(two, "c2")["pid"] not in (0, pid), within=SOON)
    eventually(lambda: opened(three, "c2", "nvidia0") == "ENXIO", within=SOON)
    assert opened(three, "c2", "nvidia1") == "ENOENT"


def whole(member: Member) -> set[str]:
    """The holders of GPU-1 and GPU-2 that are not said to be degraded."""
    rows = gpus(member)
    holds = [hold for number in (1, 2) for hold in rows[f"GPU-{number}"]["holders"]]
    return {hold["instance"] for hold in holds if not hold["degraded"]}


def alive(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def listed(member: Member) -> list[str]:
    return [row["server_name"] for row in member.ask("GET", "/1.0/cluster/members?recursion=1")]


def test_what_a_member_ended_while_it_was_cut_off_runs_again_when_it_is_back(cluster: Cluster) -> None:
    one, two, _ = cluster.members
    lxc(one, "launch", "busybox", "holder", "--target", "n3", "-c", "limits.gpu=1")
    before = state(one, "holder")["pid"]
    lxc(one, "config", "set", "gpu.fence_after", str(LEASE))
    links = Links(cluster.net)
    links.part(["n3"], ["n1", "n2"])
    try:
        eventually(lambda: not alive(before), within=2 * SOON)
    finally:
        links.heal()
        eventually(lambda: lxc_try(one, "config", "unset", "gpu.fence_after").status == 0, within=SOON)
    eventually(lambda: pid_of(two, "holder") not in (0, before), within=2 * SOON)
    eventually(lambda: "/dev/nvidia" in sh(two, "holder", "ls /dev/nvidia?"), within=SOON)
    assert [holders(two, uuid) for uuid in gpus(two)].count(["holder"]) == 1


def pid_of(member: Member, name: str) -> int:
    try:
        return int(state(member, name)["pid"])
    except Refused:
        return 0  # its member has just come back


def test_a_member_that_is_cut_off_has_ended_its_work_before_it_is_removed(cluster: Cluster) -> None:
    """The last one: n3 is no member any more."""
    one, two, three = cluster.members
    lxc(one, "config", "set", "gpu.fence_after", str(LEASE))
    lxc(one, "launch", "busybox", "holder", "--target", "n3", "-c", "limits.gpu=1")
    lxc(one, "launch", "busybox", "other", "--target", "n3")
    pids = {name: state(one, name)["pid"] for name in ("holder", "other")}
    links = Links(cluster.net)
    links.part(["n3"], ["n1", "n2"])
    try:
        lxc_try(two, "cluster", "remove", "--force", "--yes", "n3", timeout=60)
        eventually(lambda: not alive(pids["holder"]) or "n3" not in listed(two), within=2 * SOON)
        assert not alive(pids["holder"]), "removed, and its work goes on"
        assert alive(pids["other"]), "what holds no GPU is left alone"
        eventually(partial(gone, two, "n3"), within=2 * SOON)
    finally:
        links.heal()
        eventually(lambda: lxc_try(one, "config", "unset", "gpu.fence_after").status == 0, within=SOON)
    eventually(lambda: not alive(pids["other"]), within=SOON)  # it is told, and begins anew
    assert three.pid() is not None


def gone(member: Member, name: str) -> bool:
    return name not in listed(member)
