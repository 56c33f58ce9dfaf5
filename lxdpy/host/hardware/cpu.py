"""CPUs: sockets, cores, threads, caches. Sources: /sys/devices/system/cpu, /proc/cpuinfo."""

import os
import re
from collections import defaultdict
from pathlib import Path

import msgspec

from lxdpy.host.hardware.files import entries, number, numbers, text
from lxdpy.host.paths import HostRoot

KILOBYTES = {"K": 1024, "M": 1024**2, "G": 1024**3}


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    id: int  # as in cpuset.cpus
    numa_node: int
    thread: int  # which of its core's
    online: bool
    isolated: bool


class Core(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    core: int
    die: int
    threads: tuple[Thread, ...]
    frequency: int = 0  # MHz, now


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    level: int
    type: str  # Data, Instruction, Unified
    size: int


class Socket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    socket: int
    cores: tuple[Core, ...]
    name: str = ""
    vendor: str = ""
    cache: tuple[Cache, ...] = ()
    frequency: int = 0  # MHz: now, lowest, highest
    frequency_minimum: int = 0
    frequency_turbo: int = 0


class Cpus(msgspec.Struct, frozen=True, kw_only=True):
    """LXD's ResourcesCPU."""

    architecture: str
    sockets: tuple[Socket, ...]
    total: int  # threads that are online


class _Place(msgspec.Struct, frozen=True):
    socket: int
    die: int
    core: int


def online(root: HostRoot) -> list[int]:
    """Ids of the CPUs that run now."""
    return numbers(text(root.sys / "devices/system/cpu/online"))


def cpus(root: HostRoot) -> Cpus:
    folder = root.sys / "devices/system/cpu"
    running, isolated = set(online(root)), set(numbers(text(folder / "isolated")))
    facts = _facts(root.proc)
    by_core: defaultdict[_Place, list[Path]] = defaultdict(list)
    for path in entries(folder):
        # A CPU that is offline has no topology: nobody knows where it sits.
        if re.fullmatch(r"cpu\d+", path.name) and (path / "topology").is_dir():
            by_core[_place(path)].append(path)
    sockets: defaultdict[int, list[Core]] = defaultdict(list)
    first: dict[int, Path] = {}
    for place in sorted(by_core, key=lambda place: (place.socket, place.die, place.core)):
        paths = by_core[place]
        first.setdefault(place.socket, paths[0])
        threads = tuple(
            Thread(
                id=_id(path),
                numa_node=_numa(path),
                thread=position,
                online=_id(path) in running,
                isolated=_id(path) in isolated,
            )
            for position, path in enumerate(paths)
        )
        mhz = _frequency(paths[0], facts)
        sockets[place.socket].append(Core(core=place.core, die=place.die, threads=threads, frequency=mhz))
    made = tuple(_socket(number, cores, first[number], facts) for number, cores in sorted(sockets.items()))
    return Cpus(architecture=os.uname().machine, sockets=made, total=len(running))


def _socket(name: int, cores: list[Core], path: Path, facts: dict[int, dict[str, str]]) -> Socket:
    known = facts.get(_id(path), {})
    frequencies = [core.frequency for core in cores if core.frequency]
    return Socket(
        socket=name,
        cores=tuple(cores),
        name=known.get("model name", ""),
        vendor=known.get("vendor_id", ""),
        cache=_caches(path),
        frequency=sum(frequencies) // len(frequencies) if frequencies else 0,
        frequency_minimum=number(path / "cpufreq/cpuinfo_min_freq") // 1000,
        frequency_turbo=number(path / "cpufreq/cpuinfo_max_freq") // 1000,
    )


def _facts(proc: Path) -> dict[int, dict[str, str]]:
    """What /proc/cpuinfo says of each CPU; blocks parted by empty lines."""
    found: dict[int, dict[str, str]] = {}
    for block in text(proc / "cpuinfo").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        known = {name.strip(): value.strip() for name, _, value in pairs}
        if known.get("processor", "").isdigit():
            found[int(known["processor"])] = known
    return found


def _id(path: Path) -> int:
    return int(path.name.removeprefix("cpu"))


def _place(path: Path) -> _Place:
    topology = path / "topology"
    return _Place(
        socket=max(number(topology / "physical_package_id"), 0),
        die=max(number(topology / "die_id"), 0),
        core=number(topology / "core_id"),
    )


def _numa(path: Path) -> int:
    nodes = [entry.name for entry in entries(path) if re.fullmatch(r"node\d+", entry.name)]
    return int(nodes[0].removeprefix("node")) if nodes else 0


def _frequency(path: Path, facts: dict[int, dict[str, str]]) -> int:
    """MHz."""
    if known := number(path / "cpufreq/scaling_cur_freq"):
        return known // 1000
    said = facts.get(_id(path), {}).get("cpu MHz", "0")
    return int(float(said)) if re.fullmatch(r"\d+(\.\d+)?", said) else 0


def _caches(path: Path) -> tuple[Cache, ...]:
    found = []
    for folder in entries(path / "cache"):
        size = re.fullmatch(r"(\d+)([KMG]?)", text(folder / "size"))
        if size:
            bytes_ = int(size[1]) * KILOBYTES.get(size[2], 1)
            found.append(Cache(level=number(folder / "level"), type=text(folder / "type"), size=bytes_))
    return tuple(found)
