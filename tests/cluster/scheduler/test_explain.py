import pytest
from hypothesis import given

from cluster.scheduler.explain import ANOTHER, explain
from cluster.scheduler.match import parse
from cluster.scheduler.place import place, refusal
from cluster.scheduler.types import Ask, MemberView
from tests.cluster.scheduler.builders import gpu, member, taken, want
from tests.cluster.scheduler.test_invariants import asks_and_members
from tests.effort import examples


def test_every_member_and_every_card_has_its_reason() -> None:
    ask = Ask(gpus=(want(2, match=parse("model~A100")),))
    one = member(
        "n1", [gpu(1), taken(2, "lab/c1"), gpu(3, model="T4"), gpu(4, health="failed", reason="XID 79")]
    )
    found = explain(ask, [member("n2", online=False), one])
    assert found.placement is None
    assert [(each.name, each.why_not) for each in found.members] == [
        ("n1", "1 of 3 GPUs matching model~A100 free (1 failed), 2 wanted"),
        ("n2", "offline"),
    ]
    assert [each.devices["gpu"] for each in found.members[0].gpus] == [
        "", "GPU 0000:02:00.0 is held exclusively by lab/c1", ANOTHER, "GPU 0000:04:00.0 is failed: XID 79",
    ]  # fmt: skip


def test_without_gpus_only_members_are_told() -> None:
    found = explain(Ask(), [member("n1", [gpu(1)])])
    assert found.placement is not None
    assert found.members[0].gpus == ()


@examples(150)
@given(asks_and_members())
def test_it_says_what_place_does(case: tuple[Ask, list[MemberView]]) -> None:
    ask, members = case
    found = explain(ask, members)
    if found.error is None:
        assert found.placement == place(ask, members)
    else:
        with pytest.raises(type(found.error)) as refused:
            place(ask, members)
        assert (found.placement, str(refused.value)) == (None, str(found.error))
    for each in found.members:
        view = next(view for view in members if view.name == each.name)
        assert (each.why_not or None) == refusal(ask, view)
        assert len(each.gpus) == (len(view.gpus) if ask.gpus else 0)
