import msgspec
import pytest

from cluster.errors import Invalid
from cluster.membership.model import INVENTORIES, MEMBERS, Inventory, Member
from cluster.scheduler.types import MemberView, Placement
from lxdpy.config.server import SERVER
from lxdpy.resources.gpus.commands import Grant
from lxdpy.resources.gpus.model import GPUS, GPUS_KEPT, GpuRow, Holder, Kept
from lxdpy.resources.instances.claims import ask_of, grants_of, policy_of, views
from lxdpy.resources.server.model import SETTINGS, Setting
from tests.lxdpy.fakes import MEMBER_ID, LocalStore
from tests.lxdpy.resources.gpus.scene import OTHER, add, gpu, second_member
from tests.lxdpy.resources.instances.scene import instance, ready_store


def scene() -> LocalStore:
    """Two members; here a GPU held by two devices of c1 and one of lab/c2."""
    store = ready_store()
    second_member(store)
    holders = [
        Holder(key, device, "shared", since=1.0, memory=1 << 30)
        for key, device in (("default/c1", "a"), ("default/c1", "b"), ("lab/c2", "a"))
    ]
    add(store, gpu("GPU-1", MEMBER_ID, "0000:07:00.0", *holders), gpu("GPU-2", OTHER))
    return store


def seen(store: LocalStore, **how: object) -> dict[str, MemberView]:
    return {view.name: view for view in views(store.state, lambda _: True, **how)}  # type: ignore[arg-type]


def test_members_are_seen_with_what_they_have() -> None:
    store = scene()
    for name in ("c1", "c3"):
        instance(store, name)
    instance(store, "c4", location=OTHER)
    store.put(INVENTORIES, MEMBER_ID, Inventory(MEMBER_ID, "x86_64", 8, 1 << 34))
    here, there = seen(store)["none"], seen(store)["n2"]
    assert (here.instances, there.instances) == (2, 1)
    assert (here.cpus, here.memory, there.cpus) == (8, 1 << 34, 0)
    assert [view.uuid for view in (*here.gpus, *there.gpus)] == ["GPU-1", "GPU-2"]
    assert [hold.holder for hold in here.gpus[0].holders] == ["c1", "c1", "lab/c2"], "as users say it"


@pytest.mark.parametrize(
    ("status", "takes", "evacuated"),
    [("ready", True, False), ("evacuated", True, True), ("joining", False, False), ("leaving", False, False)],
)
def test_only_who_belongs_to_the_cluster_is_online(status: str, takes: bool, evacuated: bool) -> None:
    store = scene()
    store.put(MEMBERS, OTHER, Member(OTHER, "n2", status=status))  # type: ignore[arg-type]
    assert (seen(store)["n2"].online, seen(store)["n2"].evacuated) == (takes, evacuated)
    assert not views(store.state, lambda _: False)[1].online


def test_what_an_operator_set_is_told_to_the_scheduler() -> None:
    store = scene()
    row = Member(OTHER, "n2", status="ready", config={"scheduler.instance": "manual"}, groups=("rack",))
    store.put(MEMBERS, OTHER, row)
    assert (seen(store)["n2"].scheduling, seen(store)["n2"].groups) == ("manual", ("rack",))
    assert seen(store)["none"].scheduling == "all"


def test_what_an_instance_holds_counts_as_free_for_itself() -> None:
    store = scene()
    assert [hold.holder for hold in seen(store, without="default/c1")["none"].gpus[0].holders] == ["lab/c2"]
    some = seen(store, without="default/c1", devices={"b"})["none"].gpus[0]
    assert [hold.holder for hold in some.holders] == ["c1", "lab/c2"]
    row = store.state.get(GPUS, "GPU-1")
    store.put(GPUS, "GPU-1", msgspec.structs.replace(row, holders=row.holders[:2]))
    assert seen(store, without="default/c1")["none"].gpus[0].state == "free"


def test_who_has_a_whole_card_has_its_parts_and_who_has_a_part_is_in_the_cards_way() -> None:
    store = scene()
    part = msgspec.structs.replace(gpu("MIG-1"), parent="GPU-1")
    add(store, part)
    whole = "c1, which has the whole GPU"
    assert [hold.holder for hold in seen(store)["none"].gpus[1].holders] == [
        whole, whole, "lab/c2, which has the whole GPU"
    ]  # fmt: skip
    mine = seen(store, without="default/c1")["none"].gpus[1]
    assert [hold.holder for hold in mine.holders] == ["lab/c2, which has the whole GPU"]
    add(
        store,
        gpu("GPU-1"),
        msgspec.structs.replace(part, holders=(Holder("default/c3", "a", "shared", 1.0),)),
    )
    [hold] = seen(store)["none"].gpus[0].holders
    assert (hold.holder, hold.sharing) == ("c3, which has a MIG device of it", "exclusive")
    assert seen(store, without="default/c3")["none"].gpus[0].holders == ()


def test_states_that_are_no_ones_to_take_are_seen() -> None:
    store = scene()
    for known, state in (({"draining": True}, "draining"), ({"missing": True}, "missing")):
        row: GpuRow = msgspec.structs.replace(gpu("GPU-2", OTHER), **known)
        store.put(GPUS, "GPU-2", row)
        assert seen(store)["n2"].gpus[0].state == state


def test_an_ask_becomes_grants() -> None:
    config = {"limits.gpu": "2", "gpu.sharing": "shared", "gpu.memory": "1GiB"}
    devices = {
        "card": {"type": "gpu", "count": "1", "memory": "8GiB"},
        "eth0": {"type": "nic", "network": "lxdbr0"},
    }
    ask = ask_of(config, devices, "x86_64", group="rack")
    assert (ask.architecture, ask.group, ask.target) == ("x86_64", "rack", None)
    placement = Placement("n2", {"gpu": ("GPU-1", "GPU-2"), "card": ("GPU-3",)})
    assert set(grants_of(ask, placement)) == {
        Grant("card", "GPU-3", "exclusive", 0),
        Grant("gpu", "GPU-1", "shared", 1 << 30),
        Grant("gpu", "GPU-2", "shared", 1 << 30),
    }, "memory is reserved of what is shared only"
    with pytest.raises(Invalid, match="card"):
        ask_of({}, {"card": {"type": "gpu", "count": "none"}}, "")


def test_the_instance_says_how_to_rank_members_then_its_group_then_the_server() -> None:
    store = scene()
    assert policy_of(store.state, {}, "lab") == "spread"
    store.put(SETTINGS, "gpu.policy", Setting("spare-gpus"))
    store.put(SETTINGS, "gpu.policy.lab", Setting("pack"))
    assert policy_of(store.state, {}, None) == "spare-gpus"
    assert policy_of(store.state, {}, "lab") == "pack"
    assert policy_of(store.state, {}, "other") == "spare-gpus"
    assert policy_of(store.state, {"gpu.policy": "spread"}, "lab") == "spread"
    SERVER.check({"gpu.policy.lab": "pack"})
    with pytest.raises(Invalid, match=r"gpu\.policy\.lab"):
        SERVER.check({"gpu.policy.lab": "best"})


def test_what_is_kept_for_the_queue_counts_as_held_unless_one_has_it_already() -> None:
    store = scene()
    for uuid in ("GPU-1", "GPU-2"):
        store.put(GPUS_KEPT, uuid, Kept("t", "w1", 0, 1))
    [free] = seen(store)["n2"].gpus
    assert [hold.holder for hold in free.holders] == ["the queue, for w1"]
    [own] = seen(store, without="default/c1")["none"].gpus
    assert [hold.holder for hold in own.holders] == ["lab/c2"]
    [kept] = seen(store, kept=False)["n2"].gpus
    assert kept.holders == ()
