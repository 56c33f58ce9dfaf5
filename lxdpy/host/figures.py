"""What running containers use, in detail, for metrics: read from their control groups and their mounts.

All of it blocks, for about a millisecond a container: to be called in a thread.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lxdpy.host.cgroups import Cgroups
from lxdpy.host.paths import HostRoot

LEGACY = {
    "Cached": "cache",
    "Mapped": "mapped_file",
    "RSS": "rss",
    "Dirty": "dirty",
    "Writeback": "writeback",
}
UNIFIED = {
    "Cached": "file",
    "Mapped": "file_mapped",
    "RSS": "anon",
    "Dirty": "file_dirty",
    "Writeback": "file_writeback",
}
BOTH = {
    "Active_anon": "active_anon",
    "Active_file": "active_file",
    "Inactive_anon": "inactive_anon",
    "Inactive_file": "inactive_file",
    "Shmem": "shmem",
    "Unevictable": "unevictable",
}
"""LXD's words, and the kernel's in memory.stat."""


@dataclass(frozen=True)
class CpuTime:
    cpu: str
    mode: str  # "user" or "system"
    seconds: float


@dataclass(frozen=True)
class DiskUse:
    device: str
    read_bytes: int = 0
    reads: int = 0
    written_bytes: int = 0
    writes: int = 0


@dataclass(frozen=True)
class FileSystem:
    device: str
    kind: str
    mountpoint: str
    size: int
    free: int
    available: int


def cpu_times(groups: Cgroups, name: str) -> Iterator[CpuTime]:
    """By processor where the kernel counts so, which is v1; else all of them as processor 0."""
    if "cpuacct" in groups.layout.legacy:
        for line in _lines(groups.payload("cpuacct", name) / "cpuacct.usage_all")[1:]:
            cpu, user, system = line.split()
            yield CpuTime(cpu, "user", int(user) / 1e9)
            yield CpuTime(cpu, "system", int(system) / 1e9)
    elif "cpu" in groups.layout.unified:
        counted = _pairs(groups.payload("cpu", name) / "cpu.stat")
        for mode in ("user", "system"):
            if f"{mode}_usec" in counted:
                yield CpuTime("0", mode, counted[f"{mode}_usec"] / 1e6)


def memory(groups: Cgroups, name: str, host_memory: int) -> dict[str, int]:
    """Bytes by LXD's words; nothing where the kernel does not count."""
    layout = groups.layout
    if "memory" not in layout.legacy | layout.unified:
        return {}
    folder, legacy = groups.payload("memory", name), layout.version("memory") == 1
    counted = _pairs(folder / "memory.stat")
    if legacy:  # of the group itself and those within it
        counted = {
            key.removeprefix("total_"): value for key, value in counted.items() if key.startswith("total_")
        }
    found = {word: counted.get(key, 0) for word, key in (BOTH | (LEGACY if legacy else UNIFIED)).items()}
    found["Active"] = found["Active_anon"] + found["Active_file"]
    found["Inactive"] = found["Inactive_anon"] + found["Inactive_file"]
    usage = groups.usage(name)
    limit = _number(folder / ("memory.limit_in_bytes" if legacy else "memory.max"), host_memory)
    found["MemTotal"] = min(limit, host_memory)
    found["MemFree"] = max(0, found["MemTotal"] - usage.memory)
    found["MemAvailable"] = min(found["MemTotal"], found["MemFree"] + found["Cached"])
    return found | {"Swap": usage.swap}


def disks(groups: Cgroups, name: str, host: HostRoot) -> list[DiskUse]:
    """What was read from and written to block devices."""
    layout = groups.layout
    if "blkio" in layout.legacy:
        folder = groups.payload("blkio", name)
        counted: dict[str, dict[str, int]] = {}
        for file, words in (
            ("blkio.throttle.io_service_bytes_recursive", {"Read": "read_bytes", "Write": "written_bytes"}),
            ("blkio.throttle.io_serviced_recursive", {"Read": "reads", "Write": "writes"}),
        ):
            for line in _lines(folder / file):
                number, _, rest = line.partition(" ")
                what, _, value = rest.partition(" ")
                if what in words:
                    counted.setdefault(number, {})[words[what]] = int(value)
    elif "io" in layout.unified:
        words = {"rbytes": "read_bytes", "wbytes": "written_bytes", "rios": "reads", "wios": "writes"}
        counted = {
            line.split()[0]: {
                words[key]: int(value)
                for key, _, value in (word.partition("=") for word in line.split()[1:])
                if key in words
            }
            for line in _lines(groups.payload("io", name) / "io.stat")
        }
    else:
        return []
    return [DiskUse(_device(host, number), **counts) for number, counts in sorted(counted.items())]


def file_systems(pid: int, mountpoints: Collection[str]) -> Iterator[FileSystem]:
    """Those of a container's mounts; `pid` is its first process. None that it serves itself: it may hang."""
    mounted = _mounted(pid)
    for mountpoint in sorted(mountpoints):
        device, kind = mounted.get(mountpoint.rstrip("/") or "/", ("", ""))
        if not kind or kind.startswith("fuse"):
            continue
        try:
            found = os.statvfs(f"/proc/{pid}/root/{mountpoint.strip('/')}".rstrip("/"))
        except OSError:
            continue  # it ends just now
        block = found.f_frsize
        yield FileSystem(
            device, kind, mountpoint, found.f_blocks * block, found.f_bfree * block, found.f_bavail * block
        )


def _mounted(pid: int) -> dict[str, tuple[str, str]]:
    """Device and kind by mount point, as the process sees them; the last that was mounted there."""
    found = {}
    for line in _lines(Path(f"/proc/{pid}/mountinfo")):
        before, _, after = line.partition(" - ")
        kind, device, *_ = after.split(" ")
        found[before.split(" ")[4]] = (device, kind)
    return found


def _device(host: HostRoot, number: str) -> str:
    """`vda` of "253:0"; the number itself where no device has it."""
    link = host.sys / "dev/block" / number
    return link.resolve().name if link.exists() else number


def _lines(file: Path) -> list[str]:
    """None of what is not there, any more."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _pairs(file: Path) -> Mapping[str, int]:
    return {words[0]: int(words[1]) for line in _lines(file) if len(words := line.split()) == 2}


def _number(file: Path, otherwise: int) -> int:
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else otherwise
