import errno
import os
from pathlib import Path

import pytest

from cluster.errors import Conflict, Unsupported
from lxdpy.host.cgroups import CgroupFailed, Cgroups
from lxdpy.host.lxc.limits import Item
from lxdpy.host.paths import HostRoot


def host(tmp_path: Path, *mounts: str, groups: str = "0::/\n") -> HostRoot:
    proc = tmp_path / "proc"
    (proc / "1").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "1/cgroup").write_text(groups)
    (proc / "self/mountinfo").write_text("".join(f"30 20 0:26 / {line}\n" for line in mounts))
    return HostRoot(proc=proc)


@pytest.fixture
def hybrid(tmp_path: Path) -> Cgroups:
    for name in ("memory", "freezer", "cpuset", "cpuacct", "devices", "unified"):
        (tmp_path / name).mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb memory\n")
    (tmp_path / "memory/memory.memsw.limit_in_bytes").touch()
    found = Cgroups("lxdpy.n1", host(
        tmp_path,
        f"{tmp_path}/memory rw shared:9 - cgroup cgroup rw,memory",
        f"{tmp_path}/freezer rw - cgroup cgroup rw,freezer",
        f"{tmp_path}/cpuset rw - cgroup cgroup rw,cpuset",
        f"{tmp_path}/cpuacct rw - cgroup cgroup rw,cpuacct",
        f"{tmp_path}/devices rw - cgroup cgroup rw,devices",
        f"{tmp_path}/unified rw - cgroup2 cgroup2 rw,nsdelegate",
        "/ rw - ext4 /dev/root rw",
        groups="5:freezer:/\n4:memory:/\n3:cpuset:/\n2:cpuacct:/\n1:devices:/\n0::/init.scope\n",
    ))  # fmt: skip
    for name in ("memory", "freezer", "cpuset", "cpuacct", "devices"):
        (tmp_path / name / "lxdpy.n1/payload/c1/ns").mkdir(parents=True)
    return found


def test_each_controller_is_found_in_its_own_hierarchy(hybrid: Cgroups, tmp_path: Path) -> None:
    assert hybrid.layout.version("memory") == 1  # v1 has it, so v2 does not
    assert hybrid.layout.version("hugetlb") == 2
    assert hybrid.layout.memory_swap
    assert hybrid.payload("memory", "c1") == tmp_path / "memory/lxdpy.n1/payload/c1"
    assert hybrid.payload("hugetlb", "c1") == tmp_path / "unified/lxdpy.n1/payload/c1"
    with pytest.raises(Unsupported):
        hybrid.payload("rdma", "c1")


@pytest.mark.parametrize(("written", "limit"), [("150\n", 150), ("max\n", 0)])
def test_the_number_of_processes_allowed_is_read(tmp_path: Path, written: str, limit: int) -> None:
    (tmp_path / "cg/p/payload/c1").mkdir(parents=True)
    (tmp_path / "cg/cgroup.controllers").write_text("pids\n")
    (tmp_path / "cg/p/payload/c1/pids.max").write_text(written)
    found = Cgroups("p", host(tmp_path, f"{tmp_path}/cg rw - cgroup2 none rw"))
    assert (found.process_limit("c1"), found.process_limit("gone")) == (limit, 0)


def test_a_unified_host_freezes_and_guards_devices_without_controllers(tmp_path: Path) -> None:
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg/cgroup.controllers").write_text("cpu memory\n")
    found = Cgroups("p", host(tmp_path, f"{tmp_path}/cg rw - cgroup2 none rw"))
    assert {found.layout.version(name) for name in ("cpu", "memory", "freezer", "devices")} == {2}
    with pytest.raises(Unsupported, match="through LXC"):
        found.allow_device("c1", "c 1:3 rwm")


def test_groups_lie_beside_those_of_process_one(tmp_path: Path) -> None:
    (tmp_path / "cg/outer").mkdir(parents=True)
    (tmp_path / "cg/outer/cgroup.controllers").write_text("cpu\n")
    found = Cgroups(
        "p", host(tmp_path, f"{tmp_path}/cg rw - cgroup2 none rw", groups="0::/outer/init.scope\n")
    )
    assert found.payload("cpu", "c1") == tmp_path / "cg/outer/p/payload/c1"


def test_freezing_is_asked_for_and_then_looked_at(hybrid: Cgroups, tmp_path: Path) -> None:
    state = tmp_path / "freezer/lxdpy.n1/payload/c1/freezer.state"
    state.write_text("THAWED\n")
    assert not hybrid.is_frozen("c1")
    state.write_text("FREEZING\n")
    assert not hybrid.is_frozen("c1")
    state.write_text("")
    hybrid.set_frozen("c1", True)
    assert state.read_text() == "FROZEN"
    assert hybrid.is_frozen("c1")
    assert not hybrid.is_frozen("never")


def test_a_cpu_set_reaches_the_group_the_processes_are_in(hybrid: Cgroups, tmp_path: Path) -> None:
    group = tmp_path / "cpuset/lxdpy.n1/payload/c1"
    (group / "ns/init.scope").mkdir()
    for folder in (group, group / "ns", group / "ns/init.scope"):
        (folder / "cpuset.cpus").touch()
    hybrid.write("c1", [Item("cpuset", "cpuset.cpus", "0-1")])
    assert (group / "ns/cpuset.cpus").read_text() == "0-1"
    assert (group / "ns/init.scope/cpuset.cpus").read_text() == "0-1"


def test_a_value_that_is_refused_is_named(hybrid: Cgroups) -> None:
    with pytest.raises(CgroupFailed, match=r"refused memory\.limit_in_bytes = 5: No such file"):
        hybrid.write("c1", [Item("memory", "memory.limit_in_bytes", "5")])
    with pytest.raises(Conflict, match="not running"):
        hybrid.write("never", [Item("memory", "memory.limit_in_bytes", "5")])


def test_usage_is_read_and_zero_without_a_container(hybrid: Cgroups, tmp_path: Path) -> None:
    memory = tmp_path / "memory/lxdpy.n1/payload/c1"
    for file, value in (
        ("memory.usage_in_bytes", 100), ("memory.max_usage_in_bytes", 200),
        ("memory.memsw.usage_in_bytes", 150), ("memory.memsw.max_usage_in_bytes", 260),
    ):  # fmt: skip
        (memory / file).write_text(f"{value}\n")
    (tmp_path / "cpuacct/lxdpy.n1/payload/c1/cpuacct.usage").write_text("123456789\n")
    used = hybrid.usage("c1")
    assert (used.cpu, used.memory, used.memory_peak, used.swap, used.swap_peak) == (
        123456789,
        100,
        200,
        50,
        60,
    )
    assert hybrid.usage("never").memory == 0


def test_groups_are_removed_deepest_first_and_again(hybrid: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "memory/lxdpy.n1/monitor/c1").mkdir(parents=True)
    (tmp_path / "memory/lxdpy.n1/payload/c1/ns/deep/deeper").mkdir(parents=True)
    for _ in range(2):
        hybrid.remove("c1")
    assert not [*tmp_path.glob("*/lxdpy.n1/*/c1")]


def test_a_group_in_use_is_named_after_a_while(
    hybrid: Cgroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lxdpy.host.cgroups.REMOVE_WITHIN", 0.05)
    (tmp_path / "memory/lxdpy.n1/payload/c1/ns/busy").touch()  # a folder with a file cannot be removed
    with pytest.raises(Conflict, match="left in control group"):
        hybrid.remove("c1")


def test_tidying_spares_the_groups_of_living_containers(hybrid: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "cpuset/lxdpy.n1/pivot/lxc.pivot").mkdir(parents=True)
    hybrid.tidy()
    assert (tmp_path / "cpuset/lxdpy.n1/payload/c1/ns").is_dir()
    assert not (tmp_path / "cpuset/lxdpy.n1/pivot").exists()
    hybrid.remove("c1")
    hybrid.tidy()
    assert not (tmp_path / "cpuset/lxdpy.n1").exists()
    assert (tmp_path / "cpuset").is_dir()


def test_a_group_that_goes_while_it_is_looked_at_counts_as_gone(
    hybrid: Cgroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "freezer/lxdpy.n1/payload/c1/freezer.state").write_text("FROZEN\n")
    assert hybrid.is_frozen("c1")

    def gone(handle: int, what: object) -> None:  # as the kernel says it of a file that was open by then
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(os, "read", gone)
    monkeypatch.setattr(os, "write", gone)
    assert not hybrid.is_frozen("c1")
    with pytest.raises(FileNotFoundError):
        hybrid.set_frozen("c1", True)
