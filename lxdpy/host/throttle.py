"""How fast a container may read and write each block device: control groups' blkio (v1) or io (v2)."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

FIELDS = ("read_bytes", "read_iops", "write_bytes", "write_iops")
FILES = tuple(f"blkio.throttle.{way}_{unit}_device" for way in ("read", "write") for unit in ("bps", "iops"))
"""Of v1, in the order of FIELDS."""
WORDS = ("rbps", "riops", "wbps", "wiops")  # of v2's io.max, in that order too


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """Most in a second; 0 for no limit."""

    device: str  # "8:0"
    read_bytes: int = 0
    read_iops: int = 0
    write_bytes: int = 0
    write_iops: int = 0

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(getattr(self, field) for field in FIELDS)


def strictest(throttles: Iterable[Throttle]) -> dict[str, tuple[int, ...]]:
    """By device, where several disks are on one: the lowest of each limit."""
    found: dict[str, tuple[int, ...]] = {}
    for one in throttles:
        before = found.get(one.device, (0, 0, 0, 0))
        found[one.device] = tuple(
            min(filter(None, pair), default=0) for pair in zip(before, one.values, strict=True)
        )
    return found


def files_of(version: int) -> tuple[str, ...]:
    """Of the controller, those that hold limits."""
    return FILES if version == 1 else ("io.max",)


def lines(
    version: int, present: dict[str, str], wanted: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, str]]:
    """(file, line) to write for the limits `wanted`, where `present` is each file's text. PURE."""
    for index, file in enumerate(files_of(version)):
        known = {line.split()[0] for line in present.get(file, "").splitlines() if line.strip()}
        for device in sorted(known | wanted.keys()):
            values = wanted.get(device, (0, 0, 0, 0))
            if version == 2:
                pairs = zip(WORDS, values, strict=True)
                yield file, " ".join([device, *(f"{word}={value or 'max'}" for word, value in pairs)])
            elif device in known or values[index]:
                yield file, f"{device} {values[index]}"


def block_device(path: str) -> str:
    """Numbers of the whole disk that a path's file system is on, "8:0"; "" if it is on none."""
    number = os.stat(path).st_dev
    if os.major(number) == 0:  # btrfs and others show a number of their own
        number = _source_of(f"{os.major(number)}:{os.minor(number)}")
    return whole_disk(number) if number else ""


def whole_disk(number: int, sys: Path = Path("/sys")) -> str:
    """Limits are of disks, not of their partitions."""
    device = sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
    if (device / "partition").exists():
        return (device.resolve().parent / "dev").read_text().strip()
    return device.name


def _source_of(wanted: str) -> int:
    """The block device that what is mounted under this number comes from; 0 for none."""
    with open("/proc/self/mountinfo") as mounted:
        for line in mounted:
            before, _, after = line.partition(" - ")
            source = after.split()[1]
            if before.split()[2] == wanted and source.startswith("/"):
                return os.stat(source).st_rdev
    return 0
