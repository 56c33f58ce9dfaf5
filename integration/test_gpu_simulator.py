"""Machines that are not there, for real containers: a card cut by MIG, and faults while they run."""

from collections.abc import Iterator
from typing import Any

import pytest

from integration.harness import eventually, lxc, lxc_try, metrics, running
from integration.instances import busybox, clear, instance, sh
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
SOON = 60.0  # seconds; members look at their cards every 5, and the machine may be busy
CARDS = """\
gpus:
- {vendor: nvidia, uuid: GPU-cut, pci: "0000:01:00.0", mig: [1g.5gb, 1g.5gb, 3g.20gb]}
- {vendor: nvidia, uuid: GPU-whole, pci: "0000:02:00.0"}
nvml: true
"""
MIG = ("-c", "limits.gpu=1", "-c", "gpu.match=mig.profile=1g.5gb")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A card in three parts and a whole one on n1, none on n2; NVML is asked through the real binding."""
    with running(members=2, gpus=0) as made:
        one, two = made.members
        busybox(two)
        one.gpus.write_text(CARDS)
        eventually(lambda: len(gpus(two)) == 5, within=SOON)
        yield made


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    clear(cluster.members[0])


def gpus(member: Member) -> dict[str, dict[str, Any]]:
    """By uuid, MIG devices too."""
    rows = member.ask("GET", "/1.0/gpus?recursion=1")
    return {one["uuid"]: one for row in rows for one in (row, *row["mig"])}


def capabilities(member: Member, name: str) -> set[str]:
    """The files of MIG that the container sees."""
    return set(sh(member, name, "ls /dev/nvidia-caps").split())


def test_parts_of_a_card_are_given_apart_with_nothing_in_common(cluster: Cluster) -> None:
    _, two = cluster.members
    for name in ("c1", "c2"):
        lxc(two, "launch", "busybox", name, *MIG)
    seen = {name: capabilities(two, name) for name in ("c1", "c2")}
    assert [len(files) for files in seen.values()] == [2, 2]
    assert not seen["c1"] & seen["c2"]
    for file in seen["c1"]:
        path = f"/dev/nvidia-caps/{file}"
        assert "No such device or address" in sh(two, "c1", f"dd if={path} count=1")
        assert "No such file" in sh(two, "c2", f"dd if={path} count=1")
    held = {gpu["uuid"]: gpu["holders"][0]["instance"] for gpu in gpus(two).values() if gpu["holders"]}
    assert sorted(held.values()) == ["c1", "c2"]
    for uuid, name in held.items():
        assert sh(two, name, "echo $NVIDIA_VISIBLE_DEVICES").strip() == uuid
    refused = lxc_try(two, "launch", "busybox", "c3", *MIG)
    assert "n1: 0 of 2 MIG devices matching mig.profile=1g.5gb free, 1 wanted" in refused.err
    whole = lxc_try(two, "launch", "busybox", "c3", "-c", "limits.gpu=2")
    assert "n1: 1 of 2 GPUs free (1 partitioned), 2 wanted" in whole.err


def test_lxds_words_name_a_mig_device(cluster: Cluster) -> None:
    _, two = cluster.members
    big = next(gpu for gpu in gpus(two)["GPU-cut"]["mig"] if gpu["profile"] == "3g.20gb")
    lxc(two, "init", "busybox", "c1", "--target", "n1")
    words = ("gputype=mig", "pci=0000:01:00.0", f"mig.gi={big['gi']}", f"mig.ci={big['ci']}")
    lxc(two, "config", "device", "add", "c1", "part", "gpu", *words)
    lxc(two, "start", "c1")
    assert gpus(two)[big["uuid"]]["state"] == "shared"
    assert len(capabilities(two, "c1")) == 2
    lxc(two, "config", "device", "remove", "c1", "part")
    assert gpus(two)[big["uuid"]]["state"] == "free"
    assert "No such file" in sh(two, "c1", "ls /dev/nvidia0")
    wrong = lxc_try(two, "config", "device", "add", "c1", "part", "gpu", "gputype=mig", "mig.gi=1")
    assert 'Both "mig.gi" and "mig.ci" must be set' in wrong.err
    absent = lxc_try(two, "config", "device", "add", "c1", "part", "gpu", "gputype=mig", "mig.uuid=MIG-99")
    assert "no MIG device matches mig.uuid=MIG-99; there are: 2 × NVIDIA A100" in absent.err
    assert instance(two, "c1")["devices"] == {}


def test_a_card_that_fails_keeps_its_holder_and_gets_no_other_until_it_is_well(cluster: Cluster) -> None:
    one, two = cluster.members
    whole = ("-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-whole")

    def health() -> tuple[str, str]:
        return gpus(two)["GPU-whole"]["health"], gpus(two)["GPU-whole"]["reason"]

    lxc(two, "config", "set", "gpu.health.every=1", "gpu.health.probes=1")
    lxc(two, "launch", "busybox", "c1", *whole)
    one.gpus.write_text(CARDS + "faults: {GPU-whole: {xid: 79}}\n")
    eventually(lambda: health() == ("failed", "XID 79"), within=SOON)
    eventually(lambda: "GPU failed" in lxc(two, "warning", "list"), within=SOON)
    one.gpus.write_text(CARDS + "faults: {GPU-whole: {xid: 79, lost: true}}\n")
    eventually(lambda: health() == ("failed", "XID 79, does not answer"), within=SOON)
    assert gpus(two)["GPU-whole"]["holders"][0]["instance"] == "c1"
    assert instance(two, "c1")["status"] == "Running"
    assert gpus(two)["GPU-whole"]["memory"] == 40 << 30, "what was known of it stays"
    one.gpus.write_text(CARDS)
    eventually(lambda: health() == ("failed", "XID 79"), within=SOON)
    lxc(two, "delete", "--force", "c1")
    refused = lxc_try(two, "launch", "busybox", "c2", *whole)
    assert "n1: GPU 0000:02:00.0 is failed: XID 79" in refused.err
    two.lxdpy("gpu", "enable", "GPU-whole")
    eventually(lambda: health() == ("ok", ""), within=SOON)
    lxc(two, "launch", "busybox", "c2", *whole)


def test_a_drained_card_keeps_its_holder_and_gets_no_other(cluster: Cluster) -> None:
    _, two = cluster.members
    whole = ("-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-whole")
    lxc(two, "launch", "busybox", "c1", *whole)
    two.lxdpy("gpu", "drain", "GPU-w")
    try:
        lxc(two, "restart", "c1", "--force")
        assert gpus(two)["GPU-whole"]["holders"][0]["instance"] == "c1"
        lxc(two, "stop", "c1", "--force")
        refused = lxc_try(two, "start", "c1")
        assert "draining" in refused.err
    finally:
        two.lxdpy("gpu", "enable", "GPU-w")
    lxc(two, "start", "c1")


def test_what_would_be_chosen_is_chosen_and_its_time_is_counted(cluster: Cluster) -> None:
    _, two = cluster.members
    body = {"source": {"type": "none"}, "config": {"limits.gpu": "1", "gpu.match": "mig.profile~3g"}}
    told = two.ask("POST", "/1.0/instances?dry-run=1", body)
    assert (told["member"], told["why_not"], len(told["members"])) == ("n1", "", 2)
    lxc(two, "launch", "busybox", "timed", "-c", "limits.gpu=1", "-c", "gpu.match=mig.profile~3g")
    [uuid] = told["gpus"]["gpu"]
    assert gpus(two)[uuid]["holders"][0]["instance"] == "timed"
    again = two.ask("POST", "/1.0/instances?dry-run=1", body)
    assert again["why_not"].startswith("No member fits: n1: 0 of 1 MIG device matching")
    reasons = {gpu["uuid"]: gpu["devices"]["gpu"] for gpu in again["members"][0]["gpus"]}
    assert reasons[uuid] == f"MIG device {uuid} is held exclusively by timed"
    assert reasons["GPU-whole"] == "not asked for"
    lxc(two, "delete", "--force", "timed")
    [used] = [row for row in two.ask("GET", "/1.0/gpu-usage")["instances"] if row["instance"] == "timed"]
    assert used["mig_seconds"] > 0
    assert used["held"] == 0


def test_what_cards_do_is_shown_by_another_member_and_told_to_dashboards(cluster: Cluster) -> None:
    one, two = cluster.members
    folder = cluster.state / "jobs"
    one.gpus.write_text(CARDS + "faults: {GPU-whole: {busy: 0.5, processes: [{pid: 4711, memory: 2GiB}]}}\n")
    lxc(two, "config", "set", "gpu.job_mapping", str(folder))
    lxc(two, "launch", "busybox", "c1", "-c", "limits.gpu=1", "-c", "gpu.match=uuid=GPU-whole")
    eventually(lambda: "50 %" in two.lxdpy("gpu", "top", "--once"), within=SOON)
    shown = two.lxdpy("gpu", "top", "--once")
    for word in ("2GiB of 40GiB", "55 °C", "230 W", " c1 "):
        assert word in shown
    told = metrics(one)
    busy = {sample.labels["uuid"]: sample.value for sample in told["lxd_gpu_utilization_ratio"].samples}
    assert busy["GPU-whole"] == 0.5
    [held] = told["lxd_gpu_allocated"].samples
    assert held.labels == {"uuid": "GPU-whole", "project": "default", "name": "c1", "mode": "exclusive"}
    eventually(lambda: (folder / "1").read_text() == "c1\n", within=SOON)
    lxc(two, "config", "unset", "gpu.job_mapping")
    eventually(lambda: not list(folder.iterdir()), within=SOON)
    one.gpus.write_text(CARDS)
