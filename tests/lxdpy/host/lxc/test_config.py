import pytest

from cluster.errors import Invalid
from lxdpy.host.idmap import Idmap
from lxdpy.host.lxc.config import DEFAULT_DEVICES, HOST_MOUNTS, Files, lines, text
from lxdpy.host.lxc.limits import CgroupLayout
from lxdpy.host.lxc.spec import ContainerSpec, DeviceNode, Limits, Mount, Nic

LEGACY = CgroupLayout(legacy=frozenset({"cpu", "cpuset", "memory", "pids", "devices", "freezer"}))
UNIFIED = CgroupLayout(unified=frozenset({"cpu", "cpuset", "memory", "pids", "devices", "freezer"}))
FILES = Files(logs="/lxd/logs/c1", run="/lxd/run/c1", devices="/lxd/devices/c1", groups="lxdpy.n1")


def told(layout: CgroupLayout = LEGACY, /, **changes: object) -> str:
    values: dict[str, object] = {"name": "c1", "rootfs": "/pool/c1", "idmap": Idmap(1_000_000)} | changes
    return text(lines(ContainerSpec(**values), FILES, layout))  # type: ignore[arg-type]


def test_an_unprivileged_container_has_its_map_and_all_rights_within_it() -> None:
    found = told()
    assert "lxc.idmap = u 0 1000000 65536\nlxc.idmap = g 0 1000000 65536\n" in found
    assert "lxc.rootfs.path = dir:/pool/c1\nlxc.rootfs.options = idmap=container\n" in found
    assert "lxc.mount.auto = proc:rw sys:rw cgroup:mixed\n" in found
    assert "lxc.cap.drop" not in found


def test_a_privileged_container_has_no_map_and_fewer_rights() -> None:
    found = told(idmap=None)
    assert "idmap" not in found
    assert "lxc.cap.drop = sys_time sys_module sys_rawio mac_admin mac_override\n" in found
    assert "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed\n" in found


def test_a_root_that_is_mapped_already_is_not_mapped_again() -> None:
    assert "lxc.rootfs.options" not in told(rootfs_is_mapped=True)


def test_all_devices_are_denied_before_some_are_allowed() -> None:
    gpu = DeviceNode("/dev/nvidia0", 195, 0)
    rules = [line for line in told(devices=(gpu,)).splitlines() if "cgroup.devices" in line]
    assert rules == [
        "lxc.cgroup.devices.deny = a",
        *(f"lxc.cgroup.devices.allow = {rule}" for rule in DEFAULT_DEVICES),
        "lxc.cgroup.devices.allow = c 195:0 rwm",
    ]
    assert "lxc.cgroup2.devices.allow = c 195:0 rwm\n" in told(UNIFIED, devices=(gpu,))


def test_granted_devices_are_mounted_from_their_staged_nodes() -> None:
    found = told(devices=(DeviceNode("/dev/nvidia-caps/nvidia-cap1", 240, 1),))
    staged = "/lxd/devices/c1/unix.dev-nvidia--caps-nvidia--cap1"
    assert (
        f"lxc.mount.entry = {staged} dev/nvidia-caps/nvidia-cap1 none bind,create=file,optional 0 0\n"
        in found
    )


def test_what_is_to_run_before_the_init_is_a_file_that_it_cannot_change() -> None:
    found = told(first="true")
    assert "lxc.hook.start = /dev/.lxdpy-first\n" in found
    mounted = "/lxd/devices/c1/unix.first dev/.lxdpy-first none bind,ro,create=file 0 0\n"
    assert f"lxc.mount.entry = {mounted}" in found
    assert "hook" not in told()


def test_control_groups_have_fixed_names_of_this_daemon() -> None:
    found = told()
    assert "lxc.cgroup.dir.container = lxdpy.n1/payload/c1\nlxc.cgroup.dir.container.inner = ns\n" in found
    assert "lxc.cgroup.dir.monitor = lxdpy.n1/monitor/c1\n" in found


def test_limits_are_written_for_the_version_the_host_has() -> None:
    limits = Limits(cpus="0-1", memory=512, processes=7)
    assert "lxc.cgroup.memory.limit_in_bytes = 512\n" in told(limits=limits)
    assert "lxc.cgroup2.memory.max = 512\n" in told(UNIFIED, limits=limits)


def test_a_container_without_interfaces_does_not_get_the_hosts() -> None:
    assert "lxc.net.0.type = empty\n" in told()


def test_interfaces_are_written_in_order() -> None:
    nics = (
        Nic("eth0", "br0", host_name="veth1", hwaddr="00:16:3e:00:00:01", mtu=1400),
        Nic("eth1", "veth2", "phys"),
    )
    found = [line for line in told(nics=nics).splitlines() if line.startswith("lxc.net.")]
    assert found == [
        "lxc.net.0.type = veth", "lxc.net.0.flags = up", "lxc.net.0.name = eth0", "lxc.net.0.link = br0",
        "lxc.net.0.hwaddr = 00:16:3e:00:00:01", "lxc.net.0.mtu = 1400", "lxc.net.0.veth.pair = veth1",
        "lxc.net.1.type = phys", "lxc.net.1.flags = up", "lxc.net.1.name = eth1", "lxc.net.1.link = veth2",
    ]  # fmt: skip


def test_mount_paths_with_blanks_stay_one_word() -> None:
    mount = Mount("/a b\\c", "/srv/x\ty", "bind,ro")
    assert "lxc.mount.entry = /a\\040b\\134c srv/x\\011y none bind,ro 0 0\n" in told(mounts=(mount,))


def test_nesting_lxcfs_and_seccomp_are_there_when_asked_for() -> None:
    found = told(nesting=True, lxcfs="/var/lib/lxcfs", seccomp="2\n")
    assert "lxc.mount.entry = proc dev/.lxc/proc proc create=dir,optional 0 0\n" in found
    assert "lxc.mount.entry = /var/lib/lxcfs/proc/meminfo proc/meminfo none bind,optional 0 0\n" in found
    assert "lxc.seccomp.profile = /lxd/run/c1/seccomp\n" in found
    assert not any(word in told() for word in (".lxc/proc", "lxcfs", "seccomp"))


def test_apparmor_is_asked_for_where_the_kernel_has_it() -> None:
    assert "lxc.apparmor.profile = unconfined\n" in told()
    assert "lxc.apparmor.profile = generated\nlxc.apparmor.allow_nesting = 1\n" in told(
        apparmor=True, nesting=True
    )


def test_what_the_user_adds_has_the_last_word() -> None:
    assert told(raw=(("lxc.tty.max", "4"),)).endswith("lxc.tty.max = 4\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"A": "1\nlxc.cap.drop ="}},
        {"hostname": "c1\nlxc.idmap = "},
        {"sysctls": {"a = b\nc": "1"}},
        {"rootfs": "/pool\n"},
        {"init": "/bin/sh\0"},
    ],
)
def test_no_value_can_break_out_of_its_line(changes: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="Not a line"):
        told(**changes)


def test_only_what_the_host_has_is_shared() -> None:
    spec = ContainerSpec("c1", "/pool/c1", None)
    assert "/dev/fuse" in text(lines(spec, FILES, LEGACY, HOST_MOUNTS))
    assert "/dev/fuse" not in text(lines(spec, FILES, LEGACY, ()))
