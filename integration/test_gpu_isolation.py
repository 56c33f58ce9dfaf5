"""What a container can open of the GPUs of its host: those it was granted, and nothing else, by errno.

No GPU is there, so opening the file of a granted one gets to the kernel and finds no driver (ENXIO). A file
that was not given is absent (ENOENT); one that somebody brought in is denied by the container's device rules
(EPERM). All is asked through members that do not have the cards.
"""

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from integration.containers import python
from integration.harness import caught_up, eventually, lxc, lxc_try, running
from integration.instances import busybox, clear, instance, online, sh, state
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import Failed

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

CARDS = """\
gpus:
- {vendor: nvidia, uuid: GPU-1, pci: "0000:01:00.0"}
- {vendor: nvidia, uuid: GPU-2, pci: "0000:02:00.0"}
- {vendor: amd, uuid: "a000000000000001", pci: "0000:03:00.0"}
- {vendor: amd, uuid: "a000000000000002", pci: "0000:04:00.0", model: AMD Instinct MI300X}
- {vendor: intel, pci: "0000:05:00.0"}
"""
CONTROL = {
    "nvidia": {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"},
    "amd": {"kfd"},
    "intel": set(),
}
DRM = {"0000:01:00.0": 0, "0000:02:00.0": 1, "0000:03:00.0": 2, "0000:04:00.0": 3, "0000:05:00.0": 4}
SOON = 60.0  # seconds; members look at their cards every 5, and the machine may be busy
ERRORS = {"No such device or address": "ENXIO", "No such file": "ENOENT", "not permitted": "EPERM"}
SMUGGLE = """
import os, sys
from lxdpy.host import mounts
init = os.pidfd_open(int(sys.argv[1]))
mounts.inject(init, sys.argv[2], sys.argv[3], mapped=False, readonly=False, recursive=False)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Five cards of three vendors on n1, one of NVIDIA on each of the others."""
    with running(members=3, gpus=1) as made:
        one, two, _ = made.members
        busybox(two)
        one.gpus.write_text(CARDS)
        eventually(lambda: len(gpus(two)) == 7, within=SOON)
        yield made


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.members[0].gpus.write_text(CARDS)
    clear(cluster.members[1])
    eventually(lambda: all(gpu["state"] == "free" for gpu in at_home(cluster)), within=SOON)


def gpus(member: Member) -> dict[str, dict[str, Any]]:
    """By uuid."""
    return {gpu["uuid"]: gpu for gpu in caught_up(member).ask("GET", "/1.0/gpus?recursion=1")}


def busy(member: Member, uuid: str) -> float | None:
    """The share of time in which the card works."""
    rows = {gpu["uuid"]: gpu for gpu in member.ask("GET", "/1.0/gpus?recursion=2")}
    share: float | None = (rows[uuid]["figures"] or {}).get("busy")
    return share


def at_home(cluster: Cluster) -> list[dict[str, Any]]:
    return [gpu for gpu in gpus(cluster.members[1]).values() if gpu["member"] == "n1"]


def holders(member: Member, uuid: str) -> list[str]:
    return [hold["instance"] for hold in gpus(member)[uuid]["holders"]]


def files(member: Member) -> dict[str, int]:
    """Device files that this host seems to have for its GPUs: name below /dev to number."""
    [dev] = [path for path in member.folder.glob("**/root/dev") if path.is_dir()]
    nodes = {str(path.relative_to(dev)): path.lstat() for path in dev.rglob("*")}
    return {name: found.st_rdev for name, found in nodes.items() if stat.S_ISCHR(found.st_mode)}


def seen(cluster: Cluster, name: str) -> set[str]:
    """Of these files, those that are there in the container."""
    found = sh(cluster.members[1], name, "cd /dev && find . -type c").split()
    return {path.removeprefix("./") for path in found} & set(files(cluster.members[0]))


def card(address: str) -> set[str]:
    """Names of the files of one card."""
    number = DRM[address]
    own = {"0000:01:00.0": {"nvidia0"}, "0000:02:00.0": {"nvidia1"}}.get(address, set())
    return {f"dri/card{number}", f"dri/renderD{128 + number}", *own}


def tried(member: Member, name: str, paths: Iterable[str]) -> dict[str, str]:
    """What comes of opening each, below /dev; "" if it goes well."""
    said = sh(member, name, "; ".join(f"dd if=/dev/{path} of=/tmp/read count=1" for path in paths))
    errors = dict(re.findall(r"'/dev/(\S+)': (.*)", said))
    return {
        path: next((word for text, word in ERRORS.items() if text in errors.get(path, "")), "")
        for path in paths
    }


def opened(member: Member, name: str, path: str) -> str:
    return tried(member, name, [path])[path]


def smuggled(cluster: Cluster, name: str, number: int) -> str:
    """What comes of opening a device file that was put into the container behind the daemon's back."""
    source = cluster.state / "smuggled"
    os.mknod(source, stat.S_IFCHR, number)
    source.chmod(0o666)  # whatever stops it, it is not the mode
    try:
        pid = state(cluster.members[1], name)["pid"]
        subprocess.run(python(SMUGGLE, pid, source, "/dev/smuggled"), check=True, timeout=30)
        return opened(cluster.members[2], name, "smuggled")
    finally:
        source.unlink()
        lxc(cluster.members[1], "exec", name, "--", "umount", "-l", "/dev/smuggled")


def launched(cluster: Cluster, name: str, *words: str) -> None:
    lxc(cluster.members[1], "launch", "busybox", name, "--target", "n1", *words)


def with_device(cluster: Cluster, name: str, *options: str) -> None:
    lxc(cluster.members[1], "init", "busybox", name, "--target", "n1")
    lxc(cluster.members[2], "config", "device", "add", name, "card", "gpu", *options)
    lxc(cluster.members[1], "start", name)


def granted(member: Member, name: str, device: str = "gpu") -> set[str]:
    return set(
        instance(caught_up(member), name)["config"].get(f"volatile.{device}.gpu.uuids", "").split(",")
    ) - {""}


@pytest.mark.parametrize("vendor", sorted(CONTROL))
def test_a_container_opens_its_own_card_and_no_other(cluster: Cluster, vendor: str) -> None:
    _, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", f"gpu.match=vendor={vendor}")
    [uuid] = granted(two, "c1")
    own = card(gpus(three)[uuid]["pci_address"]) | CONTROL[vendor]
    assert seen(cluster, "c1") == own
    there = files(cluster.members[0])
    assert tried(three, "c1", there) == {path: "ENXIO" if path in own else "ENOENT" for path in there}
    for path in {"nvidia0", "nvidia1", "nvidiactl", "kfd", "dri/renderD130", "dri/renderD132"} - own:
        assert smuggled(cluster, "c1", there[path]) == "EPERM", path
    environment = sh(two, "c1", "env; tr '\\0' '\\n' </proc/1/environ")
    told = {line for line in environment.splitlines() if line.startswith("NVIDIA_VISIBLE_DEVICES=")}
    assert told == ({f"NVIDIA_VISIBLE_DEVICES={uuid}"} if vendor == "nvidia" else set())


def test_two_containers_of_a_member_have_no_card_in_common(cluster: Cluster) -> None:
    _, two, three = cluster.members
    for name in ("c1", "c2"):
        launched(cluster, name, "-c", "limits.gpu=2", "-c", "gpu.match=numa=0")
    launched(cluster, "none")
    assert len(granted(two, "c1") | granted(two, "c2")) == 4
    control = set().union(*CONTROL.values())
    assert not (seen(cluster, "c1") & seen(cluster, "c2")) - control
    assert seen(cluster, "none") == set()
    for path in seen(cluster, "c1") - control:
        assert opened(three, "c1", path) == "ENXIO"
        assert opened(three, "c2", path) == "ENOENT"


def test_all_that_was_granted_is_told_by_name(cluster: Cluster) -> None:
    launched(cluster, "c1", "-c", "limits.gpu=2", "-c", "gpu.match=vendor=nvidia")
    told = sh(cluster.members[2], "c1", "echo $NVIDIA_VISIBLE_DEVICES").strip()
    assert set(told.split(",")) == {"GPU-1", "GPU-2"}


def test_a_card_is_shared_by_those_who_say_so_and_as_far_as_its_memory_goes(cluster: Cluster) -> None:
    _, two, three = cluster.members
    shared = ("-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-2", "-c", "gpu.sharing=shared")
    for name in ("c1", "c2"):
        launched(cluster, name, *shared, "-c", "gpu.memory=16GiB")
        assert seen(cluster, name) == card("0000:02:00.0") | CONTROL["nvidia"]
        assert opened(three, name, "nvidia1") == "ENXIO"
    assert sorted(holders(three, "GPU-2")) == ["c1", "c2"]
    greedy = lxc_try(two, "launch", "busybox", "c3", *shared, "-c", "gpu.memory=16GiB")
    assert greedy.status
    assert "8GiB left, 16GiB wanted" in greedy.err
    alone = lxc_try(two, "launch", "busybox", "c3", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-2")
    assert alone.status
    assert "c1" in alone.err
    lxc(two, "stop", "c1", "--force")
    assert holders(three, "GPU-2") == ["c2"]


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        (["pci=0000:02:00.0"], ["0000:02:00.0"]),
        (["pci=04:00.0"], ["0000:04:00.0"]),
        (["id=1"], ["0000:02:00.0"]),
        (["vendorid=1002"], ["0000:03:00.0", "0000:04:00.0"]),
        (["vendorid=1002", "productid=74a1"], ["0000:04:00.0"]),
    ],
)
def test_lxds_selectors_give_what_they_name(
    cluster: Cluster, options: list[str], addresses: list[str]
) -> None:
    _, two, three = cluster.members
    with_device(cluster, "c1", *options)
    here = {gpu["pci_address"]: gpu for gpu in at_home(cluster)}
    vendors = {here[address]["vendor"] for address in addresses}
    own = {name for address in addresses for name in card(address)}
    own |= {name for vendor in vendors for name in CONTROL[vendor]}
    assert seen(cluster, "c1") == own
    for address in addresses:
        assert holders(three, here[address]["uuid"]) == ["c1"]
        for path in card(address):
            assert opened(two, "c1", path) == "ENXIO"
    assert granted(two, "c1", "card") == {here[address]["uuid"] for address in addresses}


def test_who_names_a_held_card_is_told_who_has_it(cluster: Cluster) -> None:
    _, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-1")
    lxc(two, "init", "busybox", "c2", "--target", "n1")
    lxc(two, "config", "device", "add", "c2", "card", "gpu", "pci=0000:01:00.0")
    refused = lxc_try(three, "start", "c2")
    assert refused.status
    assert "held exclusively by c1" in refused.err
    assert instance(caught_up(two), "c2")["status"] == "Stopped"
    with_device(cluster, "c3", "pci=0000:02:00.0")
    late = lxc_try(three, "launch", "busybox", "c4", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-2")
    assert late.status
    assert "c3" in late.err


def test_a_card_comes_to_a_running_container_and_goes(cluster: Cluster) -> None:
    one, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-1")
    before = seen(cluster, "c1")
    lxc(two, "config", "device", "add", "c1", "more", "gpu", "count=1", "match=vendor=nvidia")
    assert granted(three, "c1", "more") == {"GPU-2"}
    assert holders(three, "GPU-2") == ["c1"]
    assert seen(cluster, "c1") == before | card("0000:02:00.0")
    assert opened(three, "c1", "nvidia1") == "ENXIO"
    refused = lxc_try(
        three, "config", "device", "add", "c1", "third", "gpu", "count=1", "match=vendor=nvidia"
    )
    assert refused.status
    assert "third" not in instance(caught_up(two), "c1")["devices"]
    lxc(three, "config", "device", "remove", "c1", "more")
    assert seen(cluster, "c1") == before
    assert opened(two, "c1", "nvidia1") == "ENOENT"
    assert smuggled(cluster, "c1", files(one)["nvidia1"]) == "EPERM"
    for path in before:
        assert opened(two, "c1", path) == "ENXIO", "what the other device needs stays"
    assert gpus(three)["GPU-2"]["state"] == "free"
    lxc(two, "config", "device", "add", "c1", "other", "gpu", "pci=0000:03:00.0")
    assert opened(three, "c1", "kfd") == "ENXIO"
    lxc(two, "config", "device", "remove", "c1", "other")
    assert opened(three, "c1", "kfd") == "ENOENT"


def test_a_stopped_container_finds_its_card_again_if_nobody_took_it(cluster: Cluster) -> None:
    _, two, three = cluster.members
    nvidia = ("-c", "limits.gpu=1", "-c", "gpu.match=vendor=nvidia")
    launched(cluster, "first", *nvidia)
    launched(cluster, "c1", *nvidia)
    had = granted(two, "c1")
    [uuid] = had
    lxc(three, "stop", "c1", "--force")
    assert gpus(three)[uuid]["state"] == "free"
    lxc(two, "delete", "--force", "first")
    lxc(three, "start", "c1")
    assert granted(two, "c1") == had
    lxc(three, "stop", "c1", "--force")
    launched(cluster, "taker", "-c", "limits.gpu=1", "-c", f"gpu.match=uuid={uuid}")
    lxc(three, "start", "c1")
    assert granted(two, "c1") == {"GPU-1", "GPU-2"} - had
    lxc(two, "restart", "c1", "--force")
    assert granted(two, "c1") == {"GPU-1", "GPU-2"} - had


def test_a_card_that_is_held_always_stays_held_while_stopped(cluster: Cluster) -> None:
    _, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=2", "-c", "gpu.match=vendor=nvidia", "-c", "gpu.hold=always")
    lxc(two, "stop", "c1", "--force")
    assert holders(three, "GPU-1") == holders(three, "GPU-2") == ["c1"]
    words = ("-c", "limits.gpu=1", "-c", "gpu.match=vendor=nvidia")
    refused = lxc_try(three, "launch", "busybox", "c2", "--target", "n1", *words)
    assert refused.status
    lxc(two, "delete", "c1")
    launched(cluster, "c2", *words)


def test_a_card_that_is_lost_keeps_its_holder_and_comes_back_to_it(cluster: Cluster) -> None:
    one, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-2")
    one.gpus.write_text("\n".join(line for line in CARDS.splitlines() if "GPU-2" not in line))
    eventually(lambda: gpus(three)["GPU-2"]["state"] == "missing", within=SOON)
    assert holders(two, "GPU-2") == ["c1"]
    assert instance(two, "c1")["status"] == "Running"
    refused = lxc_try(two, "launch", "busybox", "c2", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-2")
    assert refused.status
    assert "missing" in refused.err or "c1" in refused.err
    one.gpus.write_text(CARDS)
    eventually(lambda: gpus(three)["GPU-2"]["state"] == "exclusive", within=SOON)
    assert holders(two, "GPU-2") == ["c1"]
    assert opened(three, "c1", "nvidia1") == "ENXIO"


def test_a_privileged_container_makes_files_that_it_may_not_open(cluster: Cluster) -> None:
    one, two, three = cluster.members
    words = ("-c", "security.privileged=true", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-1")
    launched(cluster, "c1", *words)
    made = {}
    for name, number in files(one).items():
        copy = f"../tmp/{name.replace('/', '-')}"
        made[copy] = "ENXIO" if name in card("0000:01:00.0") | CONTROL["nvidia"] else "EPERM"
        sh(two, "c1", f"mknod /dev/{copy} c {os.major(number)} {os.minor(number)}")
    assert tried(three, "c1", made) == made


def test_a_parked_container_runs_on_without_its_card(cluster: Cluster) -> None:
    one, two, three = cluster.members
    launched(cluster, "c1", "-c", "limits.gpu=2", "-c", "gpu.match=vendor=nvidia")
    pid = state(two, "c1")["pid"]
    own = seen(cluster, "c1")
    two.lxdpy("gpu", "park", "c1")
    assert (seen(cluster, "c1"), granted(three, "c1")) == (set(), set())
    assert smuggled(cluster, "c1", files(one)["nvidia0"]) == "EPERM"
    one.kill()
    one.start()
    eventually(lambda: online(two, one), within=SOON)
    launched(cluster, "c2", "-c", "limits.gpu=1", "-c", "gpu.match=vendor=nvidia")
    with pytest.raises(Failed, match="1 of 2"):
        three.lxdpy("gpu", "unpark", "c1")
    assert seen(cluster, "c1") == set()
    lxc(two, "delete", "--force", "c2")
    three.lxdpy("gpu", "unpark", "c1")
    assert (seen(cluster, "c1"), state(two, "c1")["pid"]) == (own, pid)
    assert opened(two, "c1", "nvidia1") == "ENXIO"
    two.lxdpy("gpu", "park", "c1")
    lxc(three, "restart", "--force", "c1")
    assert (seen(cluster, "c1"), granted(three, "c1")) == (set(), set())
    lxc(three, "stop", "--force", "c1")
    lxc(two, "start", "c1")
    assert seen(cluster, "c1") == own


def test_gpus_are_given_back_when_they_are_idle_and_when_their_lease_ends(cluster: Cluster) -> None:
    one, two, three = cluster.members
    one.gpus.write_text(CARDS.replace('pci: "0000:03:00.0"', 'pci: "0000:03:00.0", busy: 0.5'))
    eventually(lambda: busy(three, "a000000000000001") == 0.5, within=SOON)
    amd = ("-c", "limits.gpu=1", "-c", "gpu.match=uuid=a000000000000001")
    launched(cluster, "c1", *amd, "-c", "gpu.idle=2s")
    launched(cluster, "c2", "-c", "limits.gpu=1", "-c", "gpu.match=vendor=nvidia", "-c", "gpu.lease=4s")
    eventually(lambda: instance(two, "c2")["config"].get("volatile.gpu_parked") == "lease", within=SOON)
    assert seen(cluster, "c2") == set()
    assert granted(three, "c1"), "it is busy"
    one.gpus.write_text(CARDS)
    eventually(lambda: instance(two, "c1")["config"].get("volatile.gpu_parked") == "idle", within=SOON)
    assert granted(three, "c1") == set()
