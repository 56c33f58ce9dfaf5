import pytest

from cluster.errors import Invalid, Unsupported
from lxdpy.host.intercept.control import Rules
from lxdpy.resources.instances.interception import check_groups, check_mounts, rules_of
from lxdpy.resources.instances.spec import seccomp_of

PREFIX = "security.syscalls.intercept."


def test_the_rules_are_those_of_the_config_and_a_privileged_instance_has_none_switched_on() -> None:
    config = {f"{PREFIX}{key}": "true" for key in ("bpf", "bpf.devices", "mount", "sysinfo")}
    config[f"{PREFIX}mount.fuse"] = "ext4=fuse2fs"
    assert rules_of(config) == Rules(("bpf", "mount", "sysinfo"), fuse={"ext4": "fuse2fs"}, devices=True)
    assert rules_of(config | {"security.privileged": "true"}).switches == ()


def test_a_file_system_is_mounted_in_one_way() -> None:
    check_mounts({f"{PREFIX}mount.fuse": "ext4=fuse2fs", f"{PREFIX}mount.allowed": "xfs"})
    with pytest.raises(Invalid, match=r"ext4 cannot appear in .*mount\.allowed and .*mount\.fuse"):
        check_mounts({f"{PREFIX}mount.fuse": "ext4=fuse2fs", f"{PREFIX}mount.allowed": "xfs,ext4"})


def test_programs_on_devices_need_control_groups_of_version_2() -> None:
    check_groups(Rules(("bpf",), devices=True, groups={"unified": "/sys/fs/cgroup/unified/x"}))
    check_groups(Rules(("bpf",)))
    with pytest.raises(Unsupported, match=r"bpf\.devices: this member has no control groups of version 2"):
        check_groups(Rules(("bpf",), devices=True))


def test_a_policy_asks_only_where_somebody_answers() -> None:
    raw = {"raw.seccomp": "2\ndenylist\n[all]\nsethostname notify\n"}
    for config in (raw, {"security.syscalls.deny": "sethostname notify"}):
        with pytest.raises(Invalid, match="sethostname notify"):
            seccomp_of(config)
        assert "sethostname notify" in seccomp_of(config | {f"{PREFIX}mknod": "true"})


def test_a_program_of_its_own_needs_a_policy_that_is_understood() -> None:
    fuse = {f"{PREFIX}mount": "true", f"{PREFIX}mount.fuse": "ext4=fuse2fs"}
    assert "mount notify" in seccomp_of(fuse)
    with pytest.raises(Invalid, match=r"mount\.fuse: .*x86_64"):
        seccomp_of(fuse | {"raw.seccomp": "2\ndenylist\n[x86_64]\nmkdir errno 1\n"})
