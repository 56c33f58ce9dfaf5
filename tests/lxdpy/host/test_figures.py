import os
from pathlib import Path

from lxdpy.host.cgroups import Cgroups
from lxdpy.host.figures import CpuTime, DiskUse, cpu_times, disks, file_systems, memory
from lxdpy.host.paths import HostRoot
from tests.lxdpy.host.test_cgroups import host

GIB = 1 << 30


def unified(tmp_path: Path) -> Cgroups:
    group = tmp_path / "cg/p/payload/c1"
    group.mkdir(parents=True)
    (tmp_path / "cg/cgroup.controllers").write_text("cpu io memory pids\n")
    (group / "cpu.stat").write_text("usage_usec 3500000\nuser_usec 2500000\nsystem_usec 1000000\n")
    (group / "memory.stat").write_text(
        "anon 1000\nfile 500\nshmem 7\nfile_mapped 300\nfile_dirty 20\nfile_writeback 10\n"
        "inactive_anon 100\nactive_anon 900\ninactive_file 200\nactive_file 300\nunevictable 4\n"
    )
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1600\n")
    (group / "memory.swap.current").write_text("64\n")
    (group / "io.stat").write_text(
        "253:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:1 rbytes=1 wbytes=0 rios=1 wios=0\n"
    )
    return Cgroups("p", host(tmp_path, f"{tmp_path}/cg rw - cgroup2 none rw"))


def legacy(tmp_path: Path) -> Cgroups:
    controllers = ("memory", "cpuacct", "blkio")
    for name in controllers:
        (tmp_path / name / "p/payload/c1").mkdir(parents=True)
    (tmp_path / "cpuacct/p/payload/c1/cpuacct.usage_all").write_text(
        "cpu user system\n0 1500000000 500000000\n1 0 250000000\n"
    )
    (tmp_path / "memory/p/payload/c1/memory.stat").write_text(
        "cache 1\nrss 2\ntotal_cache 500\ntotal_rss 1000\n"
    )
    (tmp_path / "memory/p/payload/c1/memory.limit_in_bytes").write_text("8000\n")
    (tmp_path / "memory/p/payload/c1/memory.usage_in_bytes").write_text("1600\n")
    blkio = tmp_path / "blkio/p/payload/c1"
    (blkio / "blkio.throttle.io_service_bytes_recursive").write_text(
        "8:0 Read 4096\n8:0 Write 8192\nTotal 12288\n"
    )
    (blkio / "blkio.throttle.io_serviced_recursive").write_text("8:0 Read 1\n8:0 Write 2\nTotal 3\n")
    mounts = [f"{tmp_path}/{name} rw - cgroup cgroup rw,{name}" for name in controllers]
    groups = "".join(f"{place}:{name}:/\n" for place, name in enumerate(controllers, 1))
    return Cgroups("p", host(tmp_path, *mounts, groups=groups))


def test_processor_time_is_told_by_mode_and_where_it_can_be_by_processor(tmp_path: Path) -> None:
    assert list(cpu_times(unified(tmp_path / "2"), "c1")) == [
        CpuTime("0", "user", 2.5),
        CpuTime("0", "system", 1.0),
    ]
    assert list(cpu_times(legacy(tmp_path / "1"), "c1")) == [
        CpuTime("0", "user", 1.5),
        CpuTime("0", "system", 0.5),
        CpuTime("1", "user", 0.0),
        CpuTime("1", "system", 0.25),
    ]


def test_memory_without_a_limit_is_the_hosts(tmp_path: Path) -> None:
    found = memory(unified(tmp_path), "c1", GIB)
    assert (found["MemTotal"], found["MemFree"], found["MemAvailable"]) == (GIB, GIB - 1600, GIB - 1100)
    assert (found["Active"], found["Inactive"], found["RSS"], found["Cached"]) == (1200, 300, 1000, 500)
    assert (found["Dirty"], found["Writeback"], found["Mapped"], found["Swap"]) == (20, 10, 300, 64)


def test_memory_with_a_limit_counts_the_groups_within(tmp_path: Path) -> None:
    found = memory(legacy(tmp_path), "c1", GIB)
    assert (found["MemTotal"], found["MemFree"], found["MemAvailable"]) == (8000, 6400, 6900)
    assert (found["RSS"], found["Cached"]) == (1000, 500)


def test_disks_are_told_by_name_where_they_have_one(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/vda").mkdir(parents=True)
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/253:0").symlink_to("../../devices/vda")
    root = HostRoot(sys=tmp_path / "sys")
    assert disks(unified(tmp_path / "2"), "c1", root) == [
        DiskUse("vda", 4096, 1, 8192, 2),
        DiskUse("7:1", 1, 1, 0, 0),
    ]
    assert disks(legacy(tmp_path / "1"), "c1", root) == [DiskUse("8:0", 4096, 1, 8192, 2)]


def test_a_container_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    for groups in (unified(tmp_path / "2"), legacy(tmp_path / "1")):
        assert list(cpu_times(groups, "gone")) == []
        assert disks(groups, "gone", HostRoot()) == []
        assert memory(groups, "gone", GIB)["MemFree"] == GIB
    assert list(file_systems(2**30, ["/"])) == []


def test_mounts_of_a_process_are_measured_and_what_is_none_is_left_out() -> None:
    (root,) = file_systems(os.getpid(), ["/", "/no/such/mount"])
    assert root.mountpoint == "/"
    assert root.size >= root.free >= root.available > 0
