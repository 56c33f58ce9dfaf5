import pytest

from cluster.scheduler.eligible import usable
from cluster.scheduler.gpus import choose, fit, refused_gpus, ungrantable
from cluster.scheduler.match import parse
from cluster.scheduler.types import LINKS, Term
from tests.cluster.scheduler.builders import GIB, gpu, taken, want

NVLINK = LINKS["nvlink"]


def test_linked_gpus_are_taken_together() -> None:
    gpus = [
        gpu(1, links=(("GPU-0003", NVLINK),)),
        gpu(2, links=(("GPU-0004", NVLINK),)),
        gpu(3),
        gpu(4),
    ]
    assert choose([want(2)], gpus) == {"gpu": ("GPU-0001", "GPU-0003")}


def test_gpus_of_one_numa_node_are_taken_together() -> None:
    gpus = [gpu(1, numa=0), gpu(2, numa=1), gpu(3, numa=0, state="draining"), gpu(4, numa=1)]
    assert choose([want(2)], gpus) == {"gpu": ("GPU-0002", "GPU-0004")}


def test_a_lone_gpu_is_taken_rather_than_half_a_pair() -> None:
    gpus = [gpu(1, links=(("GPU-0002", NVLINK),)), gpu(2, links=(("GPU-0001", NVLINK),)), gpu(3)]
    assert choose([want(1)], gpus) == {"gpu": ("GPU-0003",)}


def test_the_smallest_gpu_that_will_do_is_taken() -> None:
    gpus = [gpu(1, memory=80 * GIB), gpu(2, memory=16 * GIB), gpu(3, memory=24 * GIB)]
    assert choose([want(1, memory=20 * GIB)], gpus) == {"gpu": ("GPU-0003",)}


def test_gpus_held_before_are_preferred_if_they_are_free() -> None:
    gpus = [gpu(1), taken(2), gpu(3)]
    assert choose([want(1, prefer=("GPU-0003",))], gpus) == {"gpu": ("GPU-0003",)}
    assert choose([want(1, prefer=("GPU-0002",))], gpus) == {"gpu": ("GPU-0001",)}


def test_equals_are_taken_in_order_of_address() -> None:
    assert choose([want(2)], [gpu(3), gpu(2), gpu(1)]) == {"gpu": ("GPU-0001", "GPU-0002")}


def test_devices_of_one_instance_get_different_gpus() -> None:
    found = choose([want(1, "a"), want(1, "b"), want(1, "c", sharing="shared")], [gpu(1), gpu(2), gpu(3)])
    assert found is not None
    assert len({uuid for uuids in found.values() for uuid in uuids}) == 3


def test_a_demanding_device_is_not_starved_by_an_easy_one() -> None:
    a, b, c = gpu(1, model="T4"), gpu(2, model="A100", numa=1), gpu(3, model="H100", numa=1)
    asks = [want(1, "x", match=parse("numa=1")), want(1, "y", match=parse("model~A")), want(1, "z")]
    assert choose(asks, [a, b, c]) == {"x": ("GPU-0003",), "y": ("GPU-0002",), "z": ("GPU-0001",)}
    assert choose([*asks, want(1, "w")], [a, b, c]) is None


def test_where_taste_leads_into_a_dead_end_another_way_is_found() -> None:
    gpus = [
        gpu(n, links=((f"GPU-{n ^ 1:04d}", NVLINK),), model="AB"[n > 3] + "CD"[n % 2]) for n in (2, 3, 4, 5)
    ]
    asks = [want(2, "x"), want(1, "y", match=parse("model~A")), want(1, "z", match=parse("model~A"))]
    assert choose(asks, gpus) == {"x": ("GPU-0004", "GPU-0005"), "y": ("GPU-0002",), "z": ("GPU-0003",)}


def test_a_selector_takes_all_that_fit_and_shares_them() -> None:
    gpus = [gpu(1), taken(2, sharing="shared"), gpu(3, vendor="amd", vendor_id="1002")]
    ask = want(0, sharing="shared", match=parse("vendorid=10de"))
    assert choose([ask], gpus) == {"gpu": ("GPU-0001", "GPU-0002")}


def test_a_selector_leaves_out_what_is_ill_or_gone() -> None:
    gpus = [gpu(1), gpu(2, health="failed"), gpu(3, state="missing"), gpu(4, state="draining")]
    assert choose([want(0, sharing="shared")], gpus) == {"gpu": ("GPU-0001",)}
    assert choose([want(0, sharing="shared")], gpus[1:]) is None


def test_a_selector_never_joins_an_exclusive_holder() -> None:
    ask = want(0, sharing="shared", match=parse("id=1"))
    assert choose([ask], [taken(1, by="lab/train")]) is None
    assert (
        refused_gpus([ask], [taken(1, by="lab/train")]) == "GPU 0000:01:00.0 is held exclusively by lab/train"
    )


def test_an_exclusive_ask_never_joins_a_sharer() -> None:
    ask = want(1, uuids=("GPU-0001",))
    assert refused_gpus([ask], [taken(1, sharing="shared")]) == "GPU 0000:01:00.0 is held by default/c1"


def test_an_exclusive_device_keeps_away_from_what_a_selector_shares() -> None:
    asks = [want(0, "all", sharing="shared", match=parse("id=1")), want(1, "own")]
    assert choose(asks, [gpu(1), gpu(2)]) == {"all": ("GPU-0001",), "own": ("GPU-0002",)}
    assert choose(asks, [gpu(1)]) is None


def test_sharers_reserve_no_more_memory_than_there_is() -> None:
    half = [taken(1, sharing="shared", reserved=30 * GIB)]
    assert choose([want(1, sharing="shared", memory=10 * GIB)], half) == {"gpu": ("GPU-0001",)}
    assert choose([want(1, sharing="shared", memory=11 * GIB)], half) is None
    assert "11GiB to share" in (refused_gpus([want(1, sharing="shared", memory=11 * GIB)], half) or "")


def test_sharers_who_reserve_fill_a_gpu_and_others_keep_apart() -> None:
    gpus = [gpu(1), taken(2, sharing="shared", reserved=GIB)]
    assert choose([want(1, sharing="shared", memory=GIB)], gpus) == {"gpu": ("GPU-0002",)}
    assert choose([want(1, sharing="shared")], gpus) == {"gpu": ("GPU-0001",)}


def test_many_gpus_are_chosen_quickly_and_whole() -> None:
    gpus = [gpu(n, links=((f"GPU-{n ^ 1:04d}", NVLINK),)) for n in range(32)]
    found = choose([want(12)], gpus)
    assert found is not None
    numbers = {int(uuid[4:]) for uuid in found["gpu"]}
    assert len(numbers) == 12
    assert all(n ^ 1 in numbers for n in numbers)


def test_reasons_say_how_many_are_free_and_why_others_are_not() -> None:
    gpus = [gpu(1), taken(2), gpu(3, health="failed"), gpu(4, state="draining"), gpu(5, state="missing")]
    assert refused_gpus([want(2)], gpus[:2]) == "1 of 2 GPUs free, 2 wanted"
    assert refused_gpus([want(2)], gpus) == "1 of 5 GPUs free (1 draining, 1 failed, 1 missing), 2 wanted"
    assert refused_gpus([want(1)], []) == "no GPU"
    assert refused_gpus([want(3)], [gpu(1)]) == "1 of 1 GPU free, 3 wanted"
    assert refused_gpus([want(1, match=parse("model~H100"))], gpus[:2]) == (
        "no GPU matches model~H100 (has: 2 × NVIDIA A100-SXM4-40GB)"
    )
    assert refused_gpus([want(2, match=parse("vendor=nvidia"))], gpus[:2]) == (
        "1 of 2 GPUs matching vendor=nvidia free, 2 wanted"
    )
    assert refused_gpus([want(1, "a"), want(1, "b")], gpus[:2]) == (
        "the GPUs wanted by a, b are to be had one by one, but not all at once"
    )
    assert refused_gpus([want(2, uuids=("GPU-0001",))], gpus[:1]) == "1 of 1 GPU free, 2 wanted"


@pytest.mark.parametrize("match", ["uuid=GPU-0002", "pci=02:00.0", "vendor=nvidia uuid=GPU-0002"])
def test_who_asks_for_a_card_by_its_name_is_told_who_has_it(match: str) -> None:
    gpus = [gpu(1), taken(2, by="c1")]
    assert refused_gpus([want(1, match=parse(match))], gpus) == "GPU 0000:02:00.0 is held exclusively by c1"


def test_a_grant_that_raced_is_refused() -> None:
    asks, chosen = [want(1)], {"gpu": ("GPU-0001",)}
    assert ungrantable(asks, chosen, [gpu(1)]) is None
    assert ungrantable(asks, chosen, [taken(1)]) == "GPU 0000:01:00.0 is held exclusively by default/c1"
    assert ungrantable(asks, chosen, [gpu(2)]) == "GPU GPU-0001 is not there"
    assert ungrantable(asks, chosen, [gpu(1, health="suspect")]) == "GPU 0000:01:00.0 is suspect"


def test_a_grant_that_is_not_what_was_asked_is_refused() -> None:
    gpus = [gpu(1), gpu(2)]
    assert ungrantable([want(2)], {"gpu": ("GPU-0001",)}, gpus) == "gpu: 1 GPUs granted, 2 wanted"
    assert ungrantable([want(2)], {"gpu": ("GPU-0001", "GPU-0001")}, gpus) is not None
    assert ungrantable([want(1)], {}, gpus) is not None
    assert ungrantable([want(1, match=parse("id=2"))], {"gpu": ("GPU-0001",)}, gpus) is not None
    twice = {"a": ("GPU-0001",), "b": ("GPU-0001",)}
    assert ungrantable([want(1, "a"), want(1, "b")], twice, gpus) is not None
    shared = [want(1, device, sharing="shared", memory=25 * GIB) for device in "ab"]
    assert (
        ungrantable(shared, twice, gpus) == "GPU GPU-0001 has not the memory for all devices of the instance"
    )
    assert ungrantable(shared, {"a": ("GPU-0001",), "b": ("GPU-0002",)}, gpus) is None


def test_another_choice_than_ours_may_be_granted() -> None:
    assert ungrantable([want(1)], {"gpu": ("GPU-0002",)}, [gpu(1), gpu(2)]) is None


def test_nothing_asked_is_always_served() -> None:
    assert choose([], []) == {}
    assert fit([], [])
    assert usable(want(1), []) == []


def test_a_card_is_no_mig_device_nor_the_reverse() -> None:
    card = gpu(1, state="partitioned")
    part = gpu(2, parent=card.uuid, profile="1g.5gb", gi=1, ci=0, model="A100 MIG 1g.5gb")
    mig = want(kind="mig", match=(Term("mig.profile", "=", "1g.5gb"),))
    assert choose([mig], [card, part]) == {"gpu": (part.uuid,)}
    assert choose([want()], [card, part]) is None
    assert refused_gpus([want()], [card, part]) == "0 of 1 GPU free (1 partitioned), 1 wanted"
    assert refused_gpus([mig], [gpu(3)]) == "no MIG device (has: 1 × NVIDIA A100-SXM4-40GB)"
    big = want(kind="mig", match=(Term("mig.profile", "=", "7g.40gb"),))
    assert "no MIG device matches mig.profile=7g.40gb (has: 1 × A100 MIG 1g.5gb" in str(
        refused_gpus([big], [card, part])
    )


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ({"state": "draining"}, True),
        ({"health": "suspect"}, True),
        ({"health": "failed"}, False),
        ({"state": "missing"}, False),
    ],
)
def test_who_holds_a_gpu_keeps_it_over_a_restart_though_nobody_would_get_it(
    known: dict[str, str], kept: bool
) -> None:
    one = gpu(1, **known)
    assert choose([want()], [one]) is None
    assert (choose([want(held=(one.uuid,))], [one]) is not None) == kept
