"""Limits of block devices, as what is written to control groups."""

import os
from pathlib import Path

from lxdpy.host.throttle import FILES, Throttle, block_device, lines, strictest, whole_disk

READ, READS, WRITE, WRITES = FILES


def test_of_two_disks_on_one_device_the_lower_limit_holds() -> None:
    one = Throttle(device="8:0", read_bytes=10, write_iops=7)
    two = Throttle(device="8:0", read_bytes=5, write_bytes=9)
    assert strictest([one, two, Throttle(device="8:16", read_iops=1)]) == {
        "8:0": (5, 0, 9, 7),
        "8:16": (0, 1, 0, 0),
    }


def test_old_groups_have_a_file_for_each_limit() -> None:
    present = {READ: "8:0 99\n8:16 4\n", WRITES: ""}
    assert [*lines(1, present, {"8:0": (5, 0, 0, 7)})] == [
        (READ, "8:0 5"),
        (READ, "8:16 0"),
        (WRITES, "8:0 7"),
    ]


def test_new_groups_have_one_line_for_each_device() -> None:
    present = {"io.max": "8:16 rbps=4 wbps=max riops=max wiops=max\n"}
    assert [*lines(2, present, {"8:0": (5, 0, 6, 0)})] == [
        ("io.max", "8:0 rbps=5 riops=max wbps=6 wiops=max"),
        ("io.max", "8:16 rbps=max riops=max wbps=max wiops=max"),
    ]


def test_a_partition_is_limited_as_its_disk(tmp_path: Path) -> None:
    disk = tmp_path / "devices/vdx"
    (disk / "vdx1").mkdir(parents=True)
    (disk / "dev").write_text("252:16\n")
    (disk / "vdx1/partition").write_text("1\n")
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / "dev/block/252:17").symlink_to(disk / "vdx1")
    (tmp_path / "dev/block/252:16").symlink_to(disk)
    assert whole_disk(os.makedev(252, 17), tmp_path) == "252:16"
    assert whole_disk(os.makedev(252, 16), tmp_path) == "252:16"
    assert block_device("/proc") == ""
