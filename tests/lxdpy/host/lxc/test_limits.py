import pytest

from cluster.errors import Unsupported
from lxdpy.host.lxc.limits import CgroupLayout, Item, all_items, items
from lxdpy.host.lxc.spec import Limits

CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids", "hugetlb"})
PAGES = frozenset({"2MB", "1GB"})
LEGACY = CgroupLayout(
    legacy=CONTROLLERS | {"blkio"}, memory_swap=True, disk_weight="blkio.weight", hugepages=PAGES
)
UNIFIED = CgroupLayout(
    unified=CONTROLLERS | {"io"}, memory_swap=True, disk_weight="io.weight", hugepages=PAGES
)


def values(limits: Limits, layout: CgroupLayout) -> dict[str, str]:
    return {item.file: item.value for item in items(limits, layout)}


def test_no_limits_are_nothing_to_write() -> None:
    assert items(Limits(), LEGACY) == items(Limits(), UNIFIED) == []


def test_memory_is_bounded_together_with_swap() -> None:
    assert values(Limits(memory=1000), LEGACY) == {
        "memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "1000",
        "memory.soft_limit_in_bytes": "900",
    }  # fmt: skip
    assert values(Limits(memory=1000), UNIFIED) == {"memory.max": "1000", "memory.swap.max": "0"}


def test_a_soft_limit_only_asks_to_reclaim() -> None:
    assert values(Limits(memory=1000, memory_soft=True), LEGACY) == {"memory.soft_limit_in_bytes": "1000"}
    assert values(Limits(memory=1000, memory_soft=True), UNIFIED) == {"memory.high": "1000"}


def test_swap_can_be_forbidden() -> None:
    assert values(Limits(swap=False), LEGACY) == {"memory.swappiness": "0"}
    assert values(Limits(swap=False), UNIFIED) == {"memory.swap.max": "0"}


def test_cpu_weight_quota_and_set() -> None:
    limits = Limits(cpus="1,3", cpu_shares=512, cpu_quota=(25_000, 100_000))
    assert values(limits, LEGACY) == {
        "cpuset.cpus": "1,3", "cpu.shares": "512", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000"
    }  # fmt: skip
    assert values(limits, UNIFIED) == {"cpuset.cpus": "1,3", "cpu.weight": "50", "cpu.max": "25000 100000"}


@pytest.mark.parametrize(("priority", "old", "new"), [(0, "10", "2"), (5, "500", "100"), (10, "1000", "200")])
def test_the_middle_priority_at_disks_is_what_groups_have_at_first(priority: int, old: str, new: str) -> None:
    assert values(Limits(disk_priority=priority), LEGACY) == {"blkio.weight": old}
    assert values(Limits(disk_priority=priority), UNIFIED) == {"io.weight": new}


def test_how_readily_it_is_swapped_is_for_v1_only_and_never_beats_no_swap_at_all() -> None:
    assert values(Limits(swappiness=65), LEGACY) == {"memory.swappiness": "65"}
    assert values(Limits(swappiness=65), UNIFIED) == {}
    assert values(Limits(swappiness=65, swap=False), LEGACY) == {"memory.swappiness": "0"}


def test_huge_pages_are_bounded_by_size_and_freed_again() -> None:
    limits = Limits(hugepages=(("2MB", 4 << 20),))
    assert values(limits, LEGACY) == {"hugetlb.2MB.limit_in_bytes": "4194304"}
    assert values(limits, UNIFIED) == {"hugetlb.2MB.max": "4194304"}
    assert Item("hugetlb", "hugetlb.1GB.max", "max") in all_items(limits, UNIFIED, "0-3")
    assert Item("hugetlb", "hugetlb.2MB.limit_in_bytes", "-1") in all_items(Limits(), LEGACY, "0-3")
    with pytest.raises(Unsupported, match=r"limits\.hugepages\.64KB"):
        items(Limits(hugepages=(("64KB", 1),)), UNIFIED)


def test_weights_at_disks_are_not_promised_where_there_are_none() -> None:
    with pytest.raises(Unsupported, match=r"limits\.disk\.priority"):
        items(Limits(disk_priority=5), CgroupLayout(legacy=CONTROLLERS))


@pytest.mark.parametrize(
    "limits", [Limits(memory=1), Limits(processes=1), Limits(cpus="0"), Limits(cpu_shares=2)]
)
def test_a_limit_the_host_cannot_hold_is_not_promised(limits: Limits) -> None:
    with pytest.raises(Unsupported, match="no control group controller"):
        items(limits, CgroupLayout())


def test_a_living_group_is_freed_of_what_bounded_it_before() -> None:
    found = all_items(Limits(processes=5), LEGACY, "0-3")
    assert Item("pids", "pids.max", "5") in found
    assert Item("pids", "pids.max", "max") not in found
    assert Item("cpuset", "cpuset.cpus", "0-3") in found
    assert Item("cpu", "cpu.cfs_quota_us", "-1") in found
    assert Item("memory", "memory.max", "max") in all_items(Limits(), UNIFIED, "0-3")
    assert Item("memory", "memory.swap.max", "max") in all_items(Limits(), UNIFIED, "0-3")


def test_each_file_is_written_once() -> None:
    for layout in (LEGACY, UNIFIED):
        limits = Limits("0", 2, (1, 2), 1000, False, False, 5)
        files = [item.file for item in all_items(limits, layout, "0-3")]
        assert len(files) == len(set(files))
