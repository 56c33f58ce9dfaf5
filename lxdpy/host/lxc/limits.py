"""Limits as values of control group files, for each version of control groups. PURE."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from cluster.errors import Unsupported
from lxdpy.host.lxc.spec import Limits

SOFT_PART = 0.9  # of a hard memory limit: where the kernel starts to reclaim, as LXD sets it
SHARES = 1024  # cpu.shares of everybody (v1); cpu.weight 100 on v2
DISK_WEIGHTS = {"blkio.weight": 500}  # what a group has at first, where it is not 100
USUAL_PRIORITY = 5  # of disks: what has this has that weight
SWAPPINESS = "memory.swappiness"
PERIOD = 100_000  # microseconds; the kernel's own


class CgroupLayout(msgspec.Struct, frozen=True):
    """Which controllers this host has in which hierarchy; a hybrid host has some in both sets' worlds."""

    legacy: frozenset[str] = frozenset()
    unified: frozenset[str] = frozenset()
    memory_swap: bool = False
    """Swap is accounted for: memory.memsw.* (v1) or memory.swap.* (v2) exist."""
    disk_weight: str = ""
    """The file with a group's weight at disks; "" if there is none."""
    hugepages: frozenset[str] = frozenset()
    """Sizes of huge pages, as the kernel writes them."""

    def version(self, controller: str) -> int:
        """1 or 2. Raises Unsupported when the kernel does not offer the controller at all."""
        if controller in self.legacy:
            return 1
        if controller in self.unified:
            return 2
        raise Unsupported(f"This host has no control group controller {controller!r}")


class Item(NamedTuple):
    """A file of a control group and what to write to it."""

    controller: str
    file: str
    value: str


def items(limits: Limits, layout: CgroupLayout) -> list[Item]:
    """What a new group must be told; unbounded things are left as they are."""
    found = [*_cpu(limits, layout), *_memory(limits, layout), *_disks(limits, layout)]
    found += _hugepages(limits, layout)
    if limits.processes:
        layout.version("pids")
        found.append(Item("pids", "pids.max", str(limits.processes)))
    return found


def all_items(limits: Limits, layout: CgroupLayout, all_cpus: str) -> list[Item]:
    """What a living group must be told: unbounded things too, as they may have been bounded before.

    `all_cpus`: the set of a container that is not pinned. Controllers the host lacks are asked nothing.
    """
    present = layout.legacy | layout.unified
    version2 = {name: layout.version(name) == 2 for name in present}
    free: dict[tuple[str, str], str] = {}
    if "cpuset" in present:
        free["cpuset", "cpuset.cpus"] = all_cpus
    if "cpu" in present and version2["cpu"]:
        free |= {("cpu", "cpu.weight"): "100", ("cpu", "cpu.max"): f"max {PERIOD}"}
    elif "cpu" in present:
        free |= {("cpu", "cpu.shares"): str(SHARES), ("cpu", "cpu.cfs_quota_us"): "-1"}
    if "memory" in present and version2["memory"]:
        free |= {("memory", "memory.max"): "max", ("memory", "memory.high"): "max"}
        free |= {("memory", "memory.swap.max"): "max"} if layout.memory_swap else {}
    elif "memory" in present:
        # Swap first: it may never be below the other.
        free |= {("memory", "memory.memsw.limit_in_bytes"): "-1"} if layout.memory_swap else {}
        free |= {
            ("memory", "memory.limit_in_bytes"): "-1",
            ("memory", "memory.soft_limit_in_bytes"): "-1",
            ("memory", SWAPPINESS): "60",
        }
    if "pids" in present:
        free["pids", "pids.max"] = "max"
    free |= {(item.controller, item.file): item.value for item in _weights(layout, USUAL_PRIORITY)}
    if "hugetlb" in present:
        free |= {("hugetlb", _huge_file(layout, size)): _huge_value(layout, 0) for size in layout.hugepages}
    wanted = items(limits, layout)
    asked = {(item.controller, item.file) for item in wanted}
    return [Item(*key, value) for key, value in free.items() if key not in asked] + wanted


def _cpu(limits: Limits, layout: CgroupLayout) -> Iterator[Item]:
    if limits.cpus:
        layout.version("cpuset")
        yield Item("cpuset", "cpuset.cpus", limits.cpus)
    if limits.cpu_shares:
        if layout.version("cpu") == 2:
            yield Item("cpu", "cpu.weight", str(min(10_000, max(1, limits.cpu_shares * 100 // SHARES))))
        else:
            yield Item("cpu", "cpu.shares", str(limits.cpu_shares))
    if limits.cpu_quota:
        quota, period = limits.cpu_quota
        if layout.version("cpu") == 2:
            yield Item("cpu", "cpu.max", f"{quota} {period}")
        else:
            yield Item("cpu", "cpu.cfs_period_us", str(period))
            yield Item("cpu", "cpu.cfs_quota_us", str(quota))


def _memory(limits: Limits, layout: CgroupLayout) -> Iterator[Item]:
    if limits.swap and limits.swappiness is not None and "memory" in layout.legacy:
        yield Item("memory", SWAPPINESS, str(limits.swappiness))
    if not limits.memory and limits.swap:
        return
    modern = layout.version("memory") == 2
    if limits.memory and limits.memory_soft:
        yield Item("memory", "memory.high" if modern else "memory.soft_limit_in_bytes", str(limits.memory))
    elif limits.memory:
        soft = str(int(limits.memory * SOFT_PART))
        yield Item("memory", "memory.max" if modern else "memory.limit_in_bytes", str(limits.memory))
        if layout.memory_swap and not modern:
            # Memory and swap together: without it the limit only moves the surplus to the swap device.
            yield Item("memory", "memory.memsw.limit_in_bytes", str(limits.memory))
        if not modern:
            yield Item("memory", "memory.soft_limit_in_bytes", soft)
    if not limits.swap or (limits.memory and modern and not limits.memory_soft):
        if not modern:
            yield Item("memory", SWAPPINESS, "0")
        elif layout.memory_swap:
            yield Item("memory", "memory.swap.max", "0")


def _disks(limits: Limits, layout: CgroupLayout) -> Iterator[Item]:
    if limits.disk_priority is None:
        return
    if not layout.disk_weight:
        raise Unsupported("limits.disk.priority: this host's control groups do not weigh disk requests")
    yield from _weights(layout, limits.disk_priority)


def _weights(layout: CgroupLayout, priority: int) -> Iterator[Item]:
    if layout.disk_weight:
        usual = DISK_WEIGHTS.get(layout.disk_weight, 100)
        controller = layout.disk_weight.partition(".")[0]
        yield Item(controller, layout.disk_weight, str(max(usual // 50, usual * priority // USUAL_PRIORITY)))


def _hugepages(limits: Limits, layout: CgroupLayout) -> Iterator[Item]:
    for size, most in limits.hugepages:
        layout.version("hugetlb")
        if size not in layout.hugepages:
            raise Unsupported(f"limits.hugepages.{size}: this host has no huge pages of that size")
        yield Item("hugetlb", _huge_file(layout, size), _huge_value(layout, most))


def _huge_file(layout: CgroupLayout, size: str) -> str:
    return f"hugetlb.{size}.{'max' if layout.version('hugetlb') == 2 else 'limit_in_bytes'}"


def _huge_value(layout: CgroupLayout, most: int) -> str:
    """0: without bound."""
    return str(most) if most else "max" if layout.version("hugetlb") == 2 else "-1"
