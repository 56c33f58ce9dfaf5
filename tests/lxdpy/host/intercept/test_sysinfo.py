"""Control groups are folders made for the test, of version 1 and 2."""

from pathlib import Path

from lxdpy.host.intercept.sysinfo import INFO, told

GIB = 1 << 30
HOST = INFO.pack(900_000, 1, 2, 3, 16 * GIB // 4096, 9, 8, 7, 4 * GIB // 4096, 5, 777, 0, 6, 6, 4096)


def folder(path: Path, **files: int | str) -> str:
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(f"{text}\n")
    return str(path)


def test_limits_of_version_1_are_told_and_what_is_left_of_them(tmp_path: Path) -> None:
    stat = f"total_shmem 4096\nhierarchical_memory_limit {GIB}\nhierarchical_memsw_limit {3 * GIB}"
    group = folder(
        tmp_path, memory__usage_in_bytes=GIB // 4, memory__stat=stat, pids__current=5,
        memory__memsw__usage_in_bytes=GIB // 2,
    )  # fmt: skip
    found = INFO.unpack(told(HOST, {"memory": group, "pids": group}, 12.9))
    assert found[:4] == (12, 1, 2, 3)
    assert found[4:8] == (GIB, 3 * GIB // 4, 4096, 0)
    assert found[8:10] == (2 * GIB, 2 * GIB - GIB // 4)
    assert found[10:] == (5, 0, 0, 0, 1)


def test_the_strictest_limit_of_version_2_counts_and_none_is_more_than_the_host_has(tmp_path: Path) -> None:
    (below := tmp_path / "c1").mkdir()
    folder(tmp_path, memory__max=2 * GIB, memory__swap__max="max")
    group = folder(
        below, memory__max="max", memory__swap__max=8 * GIB, memory__current=GIB, memory__stat="shmem 10",
        memory__swap__current=GIB,
    )  # fmt: skip
    found = INFO.unpack(told(HOST, {"memory": group}, 0.0))
    assert found[4:8] == (2 * GIB, GIB, 10, 0)
    assert found[8:11] == (4 * GIB, 3 * GIB, 777)


def test_swap_that_is_not_counted_is_the_hosts(tmp_path: Path) -> None:
    stat = f"total_shmem 0\nhierarchical_memory_limit {64 * GIB}"
    group = folder(tmp_path, memory__usage_in_bytes=GIB, memory__stat=stat)
    found = INFO.unpack(told(HOST, {"memory": group}, 0.0))
    assert found[4:6] == (16 * GIB, 15 * GIB)
    assert found[8:10] == (4 * GIB, 5 * 4096)


def test_without_control_groups_all_but_the_age_is_the_hosts() -> None:
    assert INFO.unpack(told(HOST, {}, 1.0))[4:11] == (
        16 * GIB, 9 * 4096, 8 * 4096, 7 * 4096, 4 * GIB, 5 * 4096, 777,
    )  # fmt: skip
