"""Memory, in bytes. Sources: /proc/meminfo, /sys/devices/system/node."""

import re
from pathlib import Path

import msgspec

from lxdpy.host.hardware.files import entries, text
from lxdpy.host.paths import HostRoot


class Node(msgspec.Struct, frozen=True, kw_only=True):
    numa_node: int
    hugepages_used: int
    hugepages_total: int
    used: int
    total: int


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """LXD's ResourcesMemory. Used is what programs could not get: what can be reclaimed is not used."""

    hugepages_total: int
    hugepages_used: int
    hugepages_size: int
    used: int
    total: int
    nodes: tuple[Node, ...] = ()


def memory(root: HostRoot) -> Memory:
    known = _read(root.proc / "meminfo")
    page = known.get("Hugepagesize", 0)
    total = known.get("MemTotal", 0)
    return Memory(
        hugepages_total=known.get("HugePages_Total", 0) * page,
        hugepages_used=(known.get("HugePages_Total", 0) - known.get("HugePages_Free", 0)) * page,
        hugepages_size=page,
        used=total - known.get("MemAvailable", known.get("MemFree", 0)),
        total=total,
        nodes=tuple(
            _node(folder, page)
            for folder in entries(root.sys / "devices/system/node")
            if re.fullmatch(r"node\d+", folder.name)
        ),
    )


def _node(folder: Path, page: int) -> Node:
    known = _read(folder / "meminfo")
    pages, free = known.get("HugePages_Total", 0), known.get("HugePages_Free", 0)
    reclaimable = sum(known.get(name, 0) for name in ("MemFree", "FilePages", "SReclaimable"))
    return Node(
        numa_node=int(folder.name.removeprefix("node")),
        hugepages_used=(pages - free) * page,
        hugepages_total=pages * page,
        used=max(known.get("MemTotal", 0) - reclaimable, 0),
        total=known.get("MemTotal", 0),
    )


def _read(path: Path) -> dict[str, int]:
    """Lines "Name: 12 kB", in a node's file with "Node 0" in front; without a unit it is a count."""
    found = re.finditer(r"^(?:Node \d+ )?(\S+):\s+(\d+)( kB)?$", text(path), re.MULTILINE)
    return {line[1]: int(line[2]) * (1024 if line[3] else 1) for line in found}
