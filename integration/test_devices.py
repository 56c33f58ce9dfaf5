"""Device files of the host in running instances: given, taken, and following what the host has."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_try, running
from integration.instances import busybox, clear, failure, instance, restarted, sh
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run
from lxdpy.host.paths import tag_of, under
from tests.lxdpy.host.devices.usb_files import SERIAL, plug, plugged, unplug

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
SOON = 15.0  # seconds


@pytest.fixture(scope="module")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all members take for their USB."""
    folder = tmp_path_factory.mktemp("usb")
    plugged(folder)
    return folder / "hardware"


@pytest.fixture(scope="module")
def cluster(hardware: Path) -> Iterator[Cluster]:
    with running(members=2, gpus=0, LXDPY_HARDWARE=str(hardware)) as made:
        busybox(made.members[0])
        yield made


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Member]:
    """The member that does not have the running instance c1."""
    one, two = cluster.members
    lxc(two, "launch", "busybox", "c1", "--target", one.name)
    yield two
    clear(two)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of the host's for device files."""
    return tmp_path


def make(path: Path, minor: int, kind: int = stat.S_IFCHR) -> None:
    """A device of a number behind which there is no driver."""
    os.mknod(path, kind | 0o600, os.makedev(60, minor))


def shown(member: Member, path: str) -> str:
    """Kind, numbers, owner and mode of a device file inside; "" if there is none."""
    return sh(member, "c1", f"test -e {path} && stat -c '%F %t:%T %u:%g %a' {path}").strip()


def opened(member: Member, path: str) -> str:
    return sh(member, "c1", f"dd if={path} count=1")


def test_a_device_file_comes_changes_and_goes(other: Member, files: Path) -> None:
    make(files / "one", 1)
    lxc(other, "config", "device", "add", "c1", "d", "unix-char", f"source={files}/one", "path=/dev/mine",
        "uid=7", "gid=8", "mode=0640")  # fmt: skip
    assert shown(other, "/dev/mine") == "character special file 3c:1 7:8 640"
    assert "No such device" in opened(other, "/dev/mine")  # allowed to be opened; no driver is there
    lxc(other, "config", "device", "set", "c1", "d", "mode=0600")
    assert shown(other, "/dev/mine").endswith("600")
    lxc(other, "restart", "--force", "c1")
    assert shown(other, "/dev/mine") == "character special file 3c:1 7:8 600"
    lxc(other, "config", "device", "remove", "c1", "d")
    assert shown(other, "/dev/mine") == ""


def test_a_block_device_is_known_by_its_numbers_alone(other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "b", "unix-block", "path=/dev/b", "major=7", "minor=250")
    assert shown(other, "/dev/b") == "block special file 7:fa 0:0 660"
    lxc(other, "config", "device", "remove", "c1", "b")
    assert shown(other, "/dev/b") == ""


def test_a_file_that_is_not_required_follows_the_hosts(other: Member, files: Path) -> None:
    source = files / "later" / "one"
    lxc(other, "config", "device", "add", "c1", "d", "unix-char", f"source={source}", "path=/dev/mine",
        "required=false")  # fmt: skip
    assert shown(other, "/dev/mine") == ""
    source.parent.mkdir()
    make(source, 1)
    eventually(lambda: " 3c:1 " in shown(other, "/dev/mine"), within=SOON)
    source.unlink()
    eventually(lambda: shown(other, "/dev/mine") == "", within=SOON)
    make(source, 2)
    eventually(lambda: " 3c:2 " in shown(other, "/dev/mine"), within=SOON)
    lxc(other, "config", "device", "remove", "c1", "d")
    assert shown(other, "/dev/mine") == ""


def test_what_came_while_the_daemon_was_away_is_found(
    cluster: Cluster, other: Member, files: Path, hardware: Path
) -> None:
    owner = cluster.members[0]
    lxc(other, "config", "device", "add", "c1", "d", "unix-char", f"source={files}/one", "path=/dev/mine",
        "required=false")  # fmt: skip
    owner.kill()
    make(files / "one", 1)
    owner.start(LXDPY_HARDWARE=str(hardware))
    eventually(lambda: " 3c:1 " in shown(other, "/dev/mine"), within=30)


def test_a_required_file_must_be_there(other: Member, files: Path) -> None:
    said = failure(other, "config", "device", "add", "c1", "d", "unix-char", f"path={files}/gone")
    assert "Required device does not exist on this host" in said
    assert instance(other, "c1")["devices"] == {}
    lxc(other, "stop", "--force", "c1")
    lxc(other, "config", "device", "add", "c1", "d", "unix-char", f"path={files}/gone")
    assert "Required device does not exist" in lxc_try(other, "start", "c1").err
    make(files / "gone", 1)
    lxc(other, "start", "c1")


def test_usb_follows_what_is_plugged_in(other: Member, hardware: Path) -> None:
    root, file = under(hardware), "/dev/bus/usb/001/009"
    lxc(other, "config", "device", "add", "c1", "u", "usb", "vendorid=0403", "mode=0666")
    assert shown(other, "/dev/bus/usb/001/007") == "character special file bd:6 0:0 666"
    assert shown(other, "/dev/bus/usb/001/004") == ""  # another vendor's
    plug(root, "1-3", {**SERIAL, "devnum": "9", "dev": "189:8"})
    eventually(lambda: " bd:8 " in shown(other, file), within=SOON)
    unplug(root, "1-3")
    eventually(lambda: shown(other, file) == "", within=SOON)
    lxc(other, "config", "device", "remove", "c1", "u")
    assert shown(other, "/dev/bus/usb/001/007") == ""


def test_udev_inside_hears_what_comes_and_goes(other: Member, hardware: Path) -> None:
    sh(other, "c1", "busybox uevent sh -c 'env; echo' </dev/null >/tmp/heard 2>&1 &")
    eventually(lambda: sh(other, "c1", "grep ' 15  *[1-9]' /proc/net/netlink"), within=SOON)  # it listens

    def heard(action: str, *facts: str) -> bool:
        said = sh(other, "c1", "cat /tmp/heard").split("\n\n")
        return any({f"ACTION={action}", *facts} <= {*one.split("\n")} for one in said)

    root, mouse = under(hardware), ("SUBSYSTEM=usb", "DEVNAME=bus/usb/001/011", "MAJOR=189", "MINOR=10")
    lxc(other, "config", "device", "add", "c1", "u", "usb", "vendorid=0403")
    plug(root, "1-4", {**SERIAL, "devnum": "11", "dev": "189:10"})
    eventually(lambda: heard("add", "DEVPATH=/devices/usb1/1-4", *mouse), within=SOON)
    unplug(root, "1-4")
    eventually(lambda: heard("remove", "DEVPATH=/devices/usb1/1-4", *mouse), within=SOON)
    null = ("SUBSYSTEM=mem", "DEVNAME=nothing", "DEVMODE=0666")
    lxc(other, "config", "device", "add", "c1", "d", "unix-char", "source=/dev/null", "path=/dev/nothing")
    assert not heard("add", *null)  # sysfs is a test's, and has no such device
    lxc(other, "config", "device", "add", "c1", "n", "nic", "nictype=p2p", "name=hot0")
    eventually(lambda: heard("move", "SUBSYSTEM=net", "INTERFACE=hot0"), within=SOON)
    lxc(other, "config", "device", "remove", "c1", "n")
    eventually(lambda: heard("remove", "SUBSYSTEM=net", "INTERFACE=hot0"), within=SOON)


def test_what_a_usb_driver_made_is_given_by_vendor(other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "line", "unix-hotplug", "vendorid=0403", "productid=6001")
    assert shown(other, "/dev/ttyUSB0") == "character special file bc:0 0:0 660"


def test_a_profile_gives_and_an_instance_overrides_through_any_member(other: Member) -> None:
    lxc(other, "profile", "create", "p")
    lxc(other, "profile", "device", "add", "p", "d", "unix-char", "path=/dev/d", "major=60", "minor=1")
    lxc(other, "profile", "assign", "c1", "default,p")
    assert " 3c:1 " in shown(other, "/dev/d")
    lxc(other, "config", "device", "override", "c1", "d", "minor=2")
    assert " 3c:2 " in shown(other, "/dev/d")
    assert lxc(other, "config", "device", "list", "c1").split() == ["d"]
    assert 'minor: "2"' in lxc(other, "config", "device", "show", "c1")
    lxc(other, "profile", "device", "set", "p", "d", "minor=3")
    lxc(other, "config", "device", "remove", "c1", "d")
    assert " 3c:3 " in shown(other, "/dev/d")
    lxc(other, "config", "device", "add", "c1", "d", "none")
    assert shown(other, "/dev/d") == ""
    lxc(other, "profile", "assign", "c1", "default")
    lxc(other, "profile", "delete", "p")


def test_disks_show_what_is_mounted_below_only_on_demand(
    cluster: Cluster, other: Member, files: Path
) -> None:
    """The daemon has mounts of its own, so those below are made in its namespace."""
    source, inner = cluster.state / "shown", cluster.state / "shown/inner"
    inner.mkdir(parents=True)
    daemon = ("nsenter", "--mount", "--target", str(cluster.members[0].pid()))
    run(*daemon, "mount", "-t", "tmpfs", "none", str(inner))
    run(*daemon, "touch", str(inner / "there"))
    words = ("config", "device", "add", "c1", "d", "disk", f"source={source}", "path=/mnt/d")
    try:
        for hot in (True, False):
            lxc(other, *words)
            restarted(other, "c1", unless=hot)
            assert sh(other, "c1", "ls /mnt/d/inner") == ""
            lxc(other, "config", "device", "set", "c1", "d", "recursive=true", "readonly=true")
            restarted(other, "c1", unless=hot)
            assert sh(other, "c1", "ls /mnt/d/inner").strip() == "there"
            assert "Read-only" in sh(other, "c1", "touch /mnt/d/inner/x")
            lxc(other, "config", "device", "remove", "c1", "d")
    finally:
        run(*daemon, "umount", str(inner))


def test_mount_options_reach_a_disk_and_no_mount_comes_out(
    cluster: Cluster, other: Member, files: Path
) -> None:
    daemon = ("nsenter", "--mount", "--target", str(cluster.members[0].pid()))
    run(*daemon, "mount", "--bind", str(files), str(files))
    run(*daemon, "mount", "--make-shared", str(files))
    (files / "inner").mkdir()
    (files / "program").write_text("#!/bin/sh\necho ran\n")
    (files / "program").chmod(0o755)
    lxc(other, "config", "device", "add", "c1", "d", "disk", f"source={files}", "path=/mnt/d", "shift=true",
        "raw.mount.options=noexec,nosuid")  # fmt: skip
    for hot in (True, False):
        restarted(other, "c1", unless=hot)
        assert "denied" in sh(other, "c1", "/mnt/d/program")
        assert "nosuid" in sh(other, "c1", "grep ' /mnt/d ' /proc/self/mountinfo")
        made = "mount -t tmpfs none /mnt/d/inner && touch /mnt/d/inner/file && ls /mnt/d/inner"
        assert sh(other, "c1", made).strip() == "file"
        assert run(*daemon, "ls", str(files / "inner")) == ""
    said = failure(other, "config", "device", "set", "c1", "d", "raw.mount.options=discard")
    assert '"raw.mount.options" has "discard"' in said
    assert instance(other, "c1")["devices"]["d"]["raw.mount.options"] == "noexec,nosuid"
    run(*daemon, "umount", "--lazy", str(files))


def test_a_disk_in_memory_is_empty_at_each_start_and_can_grow(other: Member) -> None:
    lxc(other, "config", "device", "add", "c1", "d", "disk", "source=tmpfs:", "path=/mnt/d", "size=1MiB")
    for hot in (True, False):
        restarted(other, "c1", unless=hot)
        assert "File exists" not in sh(other, "c1", "mkdir /mnt/d/mine")
        assert "No space" in sh(other, "c1", "dd if=/dev/zero of=/mnt/d/mine/file bs=1M count=2")
        assert sh(other, "c1", "stat -c %u:%g /mnt/d /mnt/d/mine").split() == ["0:0", "0:0"]
    lxc(other, "config", "device", "set", "c1", "d", "size=4MiB")
    assert "No space" not in sh(other, "c1", "dd if=/dev/zero of=/mnt/d/mine/file bs=1M count=2")
    lxc(other, "config", "device", "remove", "c1", "d")
    assert sh(other, "c1", "grep ' /mnt/d ' /proc/mounts") == ""


def test_the_file_system_of_a_block_device_is_mounted(other: Member, files: Path) -> None:
    run("truncate", "--size=16M", str(files / "image"))
    run("mkfs.ext4", "-q", str(files / "image"))
    loop = run("losetup", "--find", "--show", str(files / "image")).strip()
    try:
        lxc(other, "config", "device", "add", "c1", "d", "disk", f"source={loop}", "path=/mnt/d",
            "shift=true", "raw.mount.options=noatime")  # fmt: skip
        assert "lost+found" in sh(other, "c1", "touch /mnt/d/mine; ls /mnt/d")
        lxc(other, "restart", "--force", "c1")
        assert "mine" in sh(other, "c1", "ls /mnt/d")
        lxc(other, "config", "device", "remove", "c1", "d")
        assert sh(other, "c1", "ls /mnt/d 2>/dev/null") == ""
    finally:
        run("losetup", "--detach", loop)


def test_limits_of_disks_are_set_changed_and_lifted(other: Member, cluster: Cluster) -> None:
    source = cluster.state / "limited"
    source.mkdir()

    def limits() -> str:
        (group,) = Path("/sys/fs/cgroup/blkio").glob(f"lxdpy.{tag_of(cluster.members[0].folder)}/payload/c1")
        return (group / "blkio.throttle.read_bps_device").read_text()

    lxc(
        other,
        "config",
        "device",
        "add",
        "c1",
        "d",
        "disk",
        f"source={source}",
        "path=/mnt/d",
        "limits.read=3MB",
    )
    assert limits().split()[1] == "3000000"
    lxc(other, "config", "device", "override", "c1", "root", "limits.max=2MB")
    assert limits().split()[1] == "2000000"
    lxc(other, "restart", "--force", "c1")
    assert limits().split()[1] == "2000000"
    lxc(other, "config", "device", "unset", "c1", "root", "limits.max")
    assert limits().split()[1] == "3000000"
    lxc(other, "config", "device", "remove", "c1", "d")
    assert limits() == ""


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("unix-char", "path=/dev/x", "mode=999"), "mode", "999"),
        (("unix-block", "path=dev/x"), "path", "dev/x"),
        (("usb", "vendorid=xyz"), "vendorid", "xyz"),
        (("unix-char", "path=/dev/x", "colour=red"), "colour", "takes: type, source, path"),
        (("disk", "source=cephfs:a/b", "path=/x"), "source", "cephfs:a/b"),
        (("nic", "nictype=ipvlan", "parent=up0"), "nictype", "ipvlan"),
        (("nic", "nictype=macvlan", "parent=up0", "vlan=4095"), "vlan", "4095"),
        (("disk", "source=/etc", "path=/x", "propagation=some"), "propagation", "some"),
    ],
)
def test_a_bad_option_is_told_with_its_value(
    other: Member, words: tuple[str, ...], key: str, value: str
) -> None:
    said = failure(other, "config", "device", "add", "c1", "d", *words)
    assert 'Device validation failed for "d"' in said
    assert key in said
    assert value in said
