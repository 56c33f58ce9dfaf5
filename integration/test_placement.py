"""Where instances go: what is asked of the member and its GPUs is met, or refused with what there is."""

from collections.abc import Iterator

import pytest

from integration.harness import eventually, lxc, lxc_json, lxc_try, running
from integration.instances import busybox, clear, instance
from lxdpy.dev.api import Refused
from lxdpy.dev.members import Cluster, Member

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
NVIDIA = ("-c", "limits.gpu=1", "-c", "gpu.match=vendor=nvidia")
SOON = 15.0  # seconds; members look at their cards every 5
CARDS = {
    "n1": "gpus:\n- {vendor: nvidia, uuid: GPU-1, numa: 0}\n- {vendor: nvidia, uuid: GPU-2, numa: 1}\n",
    "n2": "gpus:\n- {vendor: nvidia, uuid: GPU-3, model: NVIDIA H100 80GB HBM3, memory: 80GiB}\n",
    "n3": "gpus:\n- {vendor: amd}\n",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """n1 with two A100, n2 with an H100, n3 with an MI210; n2 and n3 are the group `rack`."""
    with running(members=3, gpus=0) as made:
        one, two, _ = made.members
        busybox(two)
        for member in made.members:
            member.gpus.write_text(CARDS[member.name])
        lxc(one, "cluster", "group", "create", "rack")
        for name in ("n2", "n3"):
            lxc(one, "cluster", "group", "assign", name, "default,rack")
        eventually(lambda: len(one.ask("GET", "/1.0/gpus")) == 4, within=SOON)
        yield made


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    clear(cluster.members[0])


@pytest.mark.parametrize(
    ("match", "place"),
    [
        ("model~H100", "n2"),
        ("vendor=nvidia memory>=48GiB", "n2"),
        ("vendor=amd", "n3"),
        ("uuid=GPU-2", "n1"),
        ("vendor=nvidia numa=1", "n1"),
    ],
)
def test_an_instance_goes_where_the_gpu_is_that_it_describes(
    cluster: Cluster, match: str, place: str
) -> None:
    for number, via in enumerate(cluster.members):
        lxc(via, "launch", "busybox", "c1", "-c", "limits.gpu=1", "-c", f"gpu.match={match}")
        assert instance(cluster.members[number - 1], "c1")["location"] == place
        lxc(via, "delete", "--force", "c1")


def test_two_gpus_come_from_one_member(cluster: Cluster) -> None:
    lxc(cluster.members[2], "launch", "busybox", "c1", "-c", "limits.gpu=2")
    assert instance(cluster.members[1], "c1")["location"] == "n1"
    refused = lxc_try(cluster.members[1], "launch", "busybox", "c2", "-c", "limits.gpu=2")
    assert refused.status
    for reason in ("n1: 0 of 2 GPUs free", "n2: 1 of 1 GPU free", "n3: 1 of 1 GPU free"):
        assert reason in refused.err


def test_a_target_is_obeyed_or_refused(cluster: Cluster) -> None:
    one, two, three = cluster.members
    for member in cluster.members:
        lxc(two, "init", "busybox", f"on-{member.name}", "--target", member.name)
        assert instance(three, f"on-{member.name}")["location"] == member.name
    refused = lxc_try(one, "launch", "busybox", "c1", "--target", "n3", *NVIDIA)
    assert refused.status
    assert "n3: no GPU matches vendor=nvidia" in refused.err
    assert "n1:" not in refused.err, "the others were not asked for"


def test_a_group_narrows_the_choice(cluster: Cluster) -> None:
    one, two, _ = cluster.members
    for number in range(4):
        lxc(one, "init", "busybox", f"c{number}", "--target", "@rack")
    assert sorted(row["location"] for row in lxc_json(two, "list")) == ["n2", "n2", "n3", "n3"]
    lxc(one, "launch", "busybox", "gpu", "--target", "@rack", *NVIDIA)
    assert instance(two, "gpu")["location"] == "n2"
    refused = lxc_try(one, "launch", "busybox", "late", "--target", "@rack", "-c", "limits.gpu=2")
    assert refused.status
    assert "n1: not in group rack" in refused.err
    unknown = lxc_try(one, "init", "busybox", "late", "--target", "@nowhere")
    assert unknown.status
    assert "nowhere" in unknown.err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("pci=0000:77:00.0",), "NVIDIA"),
        (("vendorid=1234",), "MI210"),
        (("id=99",), "there are:"),
        (("match=colour=red",), "colour"),
        (("count=0",), "count"),
        (("count=1", "sharing=maybe"), "maybe"),
        (("pci=nonsense",), "nonsense"),
        (("gputype=teapot",), "teapot"),
    ],
)
def test_a_selector_that_nothing_can_meet_is_answered_with_what_there_is(
    cluster: Cluster, options: tuple[str, ...], why: str
) -> None:
    _, two, three = cluster.members
    body = {
        "name": "bad",
        "source": {"type": "image", "alias": "busybox"},
        "devices": {"card": {"type": "gpu", **dict(option.split("=", 1) for option in options)}},
    }
    with pytest.raises(Refused) as refused:
        two.ask("POST", "/1.0/instances", body)
    assert refused.value.status == 400
    assert why in str(refused.value)
    assert lxc_try(three, "info", "bad").status


def test_a_member_that_is_down_gets_nothing_and_is_told_of(cluster: Cluster) -> None:
    one, two, three = cluster.members
    three.kill()
    try:
        eventually(lambda: statuses(one, two) == {"Offline"}, within=40)
        for number in range(4):
            lxc(two, "init", "busybox", f"c{number}")
        assert sorted(row["location"] for row in lxc_json(one, "list")) == ["n1", "n1", "n2", "n2"]
        refused = lxc_try(two, "launch", "busybox", "gpu", "-c", "limits.gpu=1", "-c", "gpu.match=vendor=amd")
        assert refused.status
        assert "n3: offline" in refused.err
        named = lxc_try(two, "init", "busybox", "named", "--target", "n3")
        assert named.status
        assert "offline" in named.err
    finally:
        three.start()
        eventually(lambda: statuses(one, two) == {"Online"}, within=30)
    lxc(two, "launch", "busybox", "gpu", "-c", "limits.gpu=1", "-c", "gpu.match=vendor=amd")
    assert instance(one, "gpu")["location"] == "n3"


def statuses(*seen_by: Member) -> set[str]:
    """Of n3, as each of these members sees it: who places an instance goes by its own view."""
    return {
        row["status"] for m in seen_by for row in lxc_json(m, "cluster", "list") if row["server_name"] == "n3"
    }
