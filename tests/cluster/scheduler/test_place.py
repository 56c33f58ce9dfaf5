import pytest

from cluster.errors import Conflict, Exhausted, Invalid, NotFound
from cluster.scheduler.filters import FILTERS
from cluster.scheduler.match import parse
from cluster.scheduler.place import GpuHeld, NoMemberFits, NoSuchGpu, place, refusal
from cluster.scheduler.types import Ask, Hold, MemberView
from tests.cluster.scheduler.builders import gpu, member, taken, want


def test_without_gpus_the_member_with_fewest_instances_wins() -> None:
    members = [member("n1", instances=3), member("n2", instances=1), member("n3", instances=2)]
    assert place(Ask(), members).member == "n2"


def test_ties_go_to_the_lowest_name_in_whatever_order_members_come() -> None:
    members = [member("n3"), member("n1"), member("n2")]
    assert place(Ask(), members).member == place(Ask(), reversed(members)).member == "n1"


def test_five_gpu_instances_spread_2_2_1_over_three_members_of_two_gpus() -> None:
    members = {name: member(name, [gpu(1), gpu(2)]) for name in ("n1", "n2", "n3")}
    members = {
        name: member(name, [gpu(10 * n + 1), gpu(10 * n + 2)]) for n, name in enumerate(members, start=1)
    }
    placed = []
    for number in range(6):
        found = place(Ask(gpus=(want(1),)), members.values())
        members[found.member] = _granted(members[found.member], found.gpus["gpu"], f"default/c{number}")
        placed.append(found.member)
    assert placed == ["n1", "n2", "n3", "n1", "n2", "n3"]
    with pytest.raises(NoMemberFits, match=r"n1: 0 of 2 GPUs free, 1 wanted; n2: .*; n3: ") as caught:
        place(Ask(gpus=(want(1),)), members.values())
    assert set(caught.value.facts) == {"n1", "n2", "n3"}
    assert isinstance(caught.value, Exhausted)


def _granted(view: MemberView, uuids: tuple[str, ...], holder: str) -> MemberView:
    return member(
        view.name,
        (
            gpu(int(g.uuid[4:]), state="exclusive", holders=(Hold(holder, "exclusive"),))
            if g.uuid in uuids
            else g
            for g in view.gpus
        ),
        instances=view.instances + 1,
    )


def test_gpus_that_do_not_match_do_not_attract() -> None:
    amd = [gpu(n, vendor="amd") for n in (1, 2, 3)]
    members = [member("n1", [*amd, gpu(4)]), member("n2", [gpu(5), gpu(6)], instances=9)]
    ask = Ask(gpus=(want(1, match=parse("vendor=nvidia")),))
    assert place(ask, members).member == "n2"


@pytest.mark.parametrize(
    ("ask", "view", "why"),
    [
        (Ask(), member("n1", online=False), "offline"),
        (Ask(), member("n1", evacuated=True), "evacuated"),
        (Ask(), member("n1", scheduling="manual"), "only by its name"),
        (Ask(), member("n1", scheduling="group"), "only by its groups"),
        (Ask(group="gpu"), member("n1"), "not in group gpu"),
        (Ask(architecture="aarch64"), member("n1"), "x86_64, not aarch64"),
        (Ask(gpus=(want(1),)), member("n1"), "no GPU"),
        (Ask(target="n2"), member("n1"), "n2 is asked for"),
        (Ask(only={'volume "data"': ("n2",)}), member("n1"), 'has no volume "data"'),
    ],
)
def test_each_rule_gives_its_reason(ask: Ask, view: MemberView, why: str) -> None:
    assert why in (refusal(ask, view) or "")


def test_rules_speak_in_order() -> None:
    assert refusal(Ask(gpus=(want(1),)), member("n1", online=False)) == "offline"
    assert len(FILTERS) == 8


def test_naming_a_member_or_its_group_overrides_its_mode() -> None:
    assert refusal(Ask(target="n1"), member("n1", scheduling="manual")) is None
    assert refusal(Ask(target="n1"), member("n1", scheduling="group")) is None
    assert refusal(Ask(group="gpu"), member("n1", scheduling="group", groups=("gpu",))) is None


def test_only_the_target_is_considered_and_blamed() -> None:
    members = [member("n1"), member("n2", online=False)]
    assert place(Ask(target="n1"), members).member == "n1"
    with pytest.raises(NoMemberFits) as caught:
        place(Ask(target="n2"), members)
    assert caught.value.facts == {"n2": "offline"}
    with pytest.raises(NotFound, match="n9"):
        place(Ask(target="n9"), members)


def test_pack_fills_members_and_spare_gpus_keeps_gpu_members_free() -> None:
    members = [
        member("n1", [gpu(1), gpu(2)], memory=100, memory_used=10),
        member("n2", [gpu(3)], memory=100, memory_used=50, instances=4),
        member("n3", memory=100, memory_used=20, instances=6),
    ]
    assert place(Ask(gpus=(want(1),)), members, "pack").member == "n2"
    assert place(Ask(), members, "pack").member == "n3"
    assert place(Ask(), members, "spare-gpus").member == "n3"
    assert place(Ask(gpus=(want(1),)), members, "spare-gpus").member == "n2"
    with pytest.raises(Invalid, match=r"pack, spare-gpus, spread"):
        place(Ask(), members, "random")


def test_a_selector_that_no_gpu_of_any_member_fits_says_what_there_is() -> None:
    ask = Ask(gpus=(want(0, "g0", sharing="shared", match=parse("pci=0000:99:00.0")),))
    with pytest.raises(NoSuchGpu, match=r"g0: no GPU matches pci=0000:99:00\.0; there are: 1 × NVIDIA A100"):
        place(ask, [member("n1", [gpu(1)]), member("n2")])
    with pytest.raises(NoSuchGpu, match="no member has a GPU"):
        place(ask, [member("n1")])


def test_a_selected_gpu_of_a_member_that_is_offline_is_not_unknown() -> None:
    ask = Ask(gpus=(want(0, sharing="shared", match=parse("id=1")),))
    with pytest.raises(NoMemberFits):
        place(ask, [member("n1", [gpu(1)], online=False), member("n2")])


def test_a_selected_gpu_that_is_held_is_a_conflict_naming_the_holder() -> None:
    ask = Ask(gpus=(want(0, sharing="shared", match=parse("id=1")),))
    with pytest.raises(GpuHeld, match="held exclusively by lab/train") as caught:
        place(ask, [member("n1", [taken(1, by="lab/train")]), member("n2", [gpu(2)])])
    assert isinstance(caught.value, Conflict)


def test_no_members_at_all_is_a_refusal() -> None:
    with pytest.raises(NoMemberFits, match="there are none"):
        place(Ask(), [])
