"""Keys of an instance's config that change what it is inside, each seen to take effect in a container."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from integration import harness
from integration.harness import eventually, lxc, lxc_try
from integration.instances import busybox, clear, failure, instance, launch, sh, state
from lxdpy.dev.members import Cluster, Member
from lxdpy.host.cgroups import Cgroups
from lxdpy.host.paths import tag_of

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with harness.running(members=2, gpus=0) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Member]:
    """Not the owner of what the tests make."""
    yield cluster.members[1]
    clear(cluster.members[1])


def uid_map(member: Member, name: str, file: str = "uid_map") -> list[list[int]]:
    text = Path(f"/proc/{state(member, name)['pid']}/{file}").read_text()
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def test_environment_limits_and_sysctls_are_those_of_the_config(other: Member) -> None:
    launch(
        other, "c1", "environment.GREETING=hello you", "limits.kernel.nofile=300:400",
        "limits.kernel.core=unlimited", "linux.sysctl.net.ipv4.ip_forward=1",
    )  # fmt: skip
    assert sh(other, "c1", "echo $GREETING") == "hello you\n"
    assert "GREETING=hello you" in sh(other, "c1", "tr '\\0' '\\n' < /proc/1/environ")
    limits = {" ".join(line.split()[:-3]): line.split()[-3:-1] for line in
              sh(other, "c1", "grep -E 'open files|core file' /proc/1/limits").splitlines()}  # fmt: skip
    assert limits == {"Max open files": ["300", "400"], "Max core file size": ["unlimited", "unlimited"]}
    assert sh(other, "c1", "cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    lxc(other, "config", "set", "c1", "environment.GREETING=again")
    assert sh(other, "c1", "echo $GREETING") == "again\n"


def test_priorities_and_huge_pages_are_those_of_the_config(cluster: Cluster, other: Member) -> None:
    groups = Cgroups(f"lxdpy.{tag_of(cluster.members[0].folder)}")

    def said(controller: str, file: str) -> str:
        return (groups.payload(controller, "c1") / file).read_text().strip()

    weight, layout = groups.layout.disk_weight, groups.layout
    pages = "hugetlb.2MB." + ("limit_in_bytes" if "hugetlb" in layout.legacy else "max")
    launch(other, "c1", "limits.cpu.priority=5", "limits.memory.swap.priority=3", "limits.disk.priority=8",
           "limits.hugepages.2MB=4MiB")  # fmt: skip
    assert said("cpu", "cpu.shares") == "1019"
    assert said("memory", "memory.swappiness") == "67"
    assert said(weight.partition(".")[0], weight) == "160"
    assert said("hugetlb", pages) == str(4 << 20)
    lxc(other, "config", "set", "c1", "limits.cpu.priority=10", "limits.hugepages.2MB=8MiB")
    assert (said("cpu", "cpu.shares"), said("hugetlb", pages)) == ("1024", str(8 << 20))
    lxc(
        other,
        "config",
        "set",
        "c1",
        "limits.hugepages.2MB=",
        "limits.disk.priority=",
        "limits.cpu.priority=0",
    )
    assert (said("cpu", "cpu.shares"), said(weight.partition(".")[0], weight)) == ("1014", "100")
    assert int(said("hugetlb", pages).replace("max", str(2**62))) >= 2**62
    assert "limits.hugepages.64KB" in failure(other, "config", "set", "c1", "limits.hugepages.64KB=1MiB")


def test_a_kernel_module_that_is_needed_and_missing_fails_the_start(other: Member) -> None:
    there = sorted(path.name for path in Path("/sys/module").iterdir())[0]
    launch(other, "c1", f"linux.kernel_modules={there}")
    assert "no_such_module" in failure(other, "config", "set", "c1", "linux.kernel_modules=no_such_module")
    lxc(other, "stop", "--force", "c1")
    lxc(other, "config", "set", "c1", f"linux.kernel_modules={there},no_such_module")
    assert "no_such_module" in failure(other, "start", "c1")
    assert "linux.kernel_modules" in failure(other, "config", "set", "c1", "linux.kernel_modules=../x")


def test_raw_lxc_is_taken_and_has_the_last_word(other: Member) -> None:
    launch(other, "c1", "raw.lxc=lxc.uts.name = other\nlxc.environment = A=b")
    assert sh(other, "c1", "hostname; tr '\\0' '\\n' < /proc/1/environ | grep ^A=") == "other\nA=b\n"
    assert "raw.lxc" in failure(other, "config", "set", "c1", "raw.lxc=nonsense")


def test_system_calls_are_refused_as_the_config_says(other: Member) -> None:
    launch(other, "c1", "security.syscalls.deny=mkdirat errno 1\nmkdir errno 1\nsethostname")
    assert "not permitted" in sh(other, "c1", "mkdir /x")
    assert "not implemented" in sh(other, "c1", "hostname x")
    launch(other, "c2", "security.syscalls.blacklist=mkdir errno 5\nmkdirat errno 5")
    assert "error" in sh(other, "c2", "mkdir /x")
    launch(other, "c3", "raw.seccomp=2\ndenylist\n[all]\nmkdir errno 17\nmkdirat errno 17\n")
    assert "File exists" in sh(other, "c3", "mkdir /x")
    denied = sh(other, "c1", "grep Seccomp: /proc/self/status")
    assert denied == "Seccomp:\t2\n"
    lxc(other, "config", "set", "c3", "raw.seccomp=", "security.syscalls.deny_default=false")
    lxc(other, "restart", "--force", "c3")
    assert sh(other, "c3", "grep Seccomp: /proc/self/status; mkdir /x && echo made") == "Seccomp:\t0\nmade\n"


def test_only_what_is_on_the_list_may_be_called(other: Member) -> None:
    lxc(other, "init", "busybox", "c1", "--target", "n1", "-c", "security.syscalls.allow=read\nwrite")
    done = lxc_try(other, "start", "c1")
    # It ends at its first call of another kind, which its start may see, or not.
    eventually(lambda: done.status == 1 or state(other, "c1")["status"] == "Stopped", within=30)


def test_ids_let_through_are_the_same_inside_and_outside(other: Member, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 1000, 1000)
    launch(other, "c1", "raw.idmap=both 1000 1000\nuid 2000-2009 500-509")
    lxc(other, "config", "device", "add", "c1", "s", "disk", f"source={shared}", "path=/mnt/s")
    users, groups = uid_map(other, "c1"), uid_map(other, "c1", "gid_map")
    base = users[0][1]
    assert users == [
        [0, base, 500], [500, 2000, 10], [510, base + 510, 490], [1000, 1000, 1],
        [1001, base + 1001, 64535],
    ]  # fmt: skip
    assert groups == [[0, base, 1000], [1000, 1000, 1], [1001, base + 1001, 64535]]
    assert sh(other, "c1", "stat -c '%u %g' /mnt/s") == "1000 1000\n"
    done = lxc_try(other, "exec", "c1", "--user=1000", "--group=1000", "--", "touch", "/mnt/s/file")
    assert not done.status, done.err
    assert ((shared / "file").stat().st_uid, (shared / "file").stat().st_gid) == (1000, 1000)
    sh(other, "c1", "touch /root/a; chown 1000:1000 /root/a; touch /root/b; chown 505:505 /root/b")
    assert sh(other, "c1", "stat -c '%u %g' /root/a /root/b") == "1000 1000\n505 505\n"
    lxc(other, "config", "unset", "c1", "raw.idmap")
    lxc(other, "restart", "--force", "c1")
    assert uid_map(other, "c1") == [[0, base, 65536]]
    assert sh(other, "c1", "stat -c '%u %g' /root/a /root/b") == "1000 1000\n505 505\n"
    for wrong in ("both 0 5", "uid 1000001 5", "both 1-2 1-3"):
        assert "raw.idmap" in failure(other, "config", "set", "c1", f"raw.idmap={wrong}")


def test_maps_have_the_size_and_place_that_are_asked_for_and_never_overlap(other: Member) -> None:
    launch(other, "c1", "security.idmap.isolated=true", "security.idmap.size=200000")
    launch(other, "c2", "security.idmap.isolated=true", "security.idmap.base=3000000000")
    launch(other, "c3")
    maps = {name: uid_map(other, name)[0] for name in ("c1", "c2", "c3")}
    assert maps["c1"][2] == 200_000
    assert maps["c2"] == [0, 3_000_000_000, 65_536]
    spans = sorted((first, first + length) for _, first, length in maps.values())
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert sh(other, "c1", "touch /a; chown 150000:150000 /a; stat -c %u /a") == "150000\n"
    assert '"Hostid":3000000000' in instance(other, "c2")["config"]["volatile.idmap.current"]
    lxc(other, "stop", "--force", "c3")
    lxc(other, "config", "set", "c3", "security.idmap.isolated=true", "security.idmap.base=3000010000")
    assert "another instance" in failure(other, "start", "c3")
    lxc(other, "delete", "--force", "c2")
    lxc(other, "start", "c3")
    assert uid_map(other, "c3") == [[0, 3_000_010_000, 65_536]]
    lxc(other, "config", "unset", "c1", "security.idmap.size")
    lxc(other, "restart", "--force", "c1")
    assert uid_map(other, "c1")[0][2] == 65_536
