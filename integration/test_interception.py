"""System calls that are made for an instance, by a process beside it, or refused to it."""

import ctypes
import errno
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.harness import eventually, lxc, lxc_try
from integration.instances import busybox, clear, failure, launch, processes_with, sh, state
from integration.one_call import Of, Text, chain, program
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


def call(member: Member, name: str, folder: Path, code: bytes) -> int:
    """The errno of a system call that a program of `one_call` makes in the instance."""
    file = folder / "call"
    file.write_bytes(code)
    lxc(member, "file", "push", "--mode=0755", str(file), f"{name}/call")
    return lxc_try(member, "exec", name, "/call").status


def interceptors(member: Member) -> list[int]:
    """The processes beside the member's containers that make system calls for them."""
    folder = os.fsencode(member.folder / "run/.calls")
    return processes_with(lambda word: word.startswith(folder))


def test_harmless_nodes_are_made_for_the_instance_and_no_others(other: Member) -> None:
    launch(other, "c1", "security.syscalls.intercept.mknod=true")
    made = sh(other, "c1", "umask 027; mkdir -m 700 /o; chown 7:8 /o; mknod /o/null c 1 3; echo x > /o/null; "
              "stat -c '%t %T %u %g %a' /o/null; cd /dev; mknod zz c 1 5; head -c 3 zz | wc -c; "
              "mknod w c 0 0 && echo whiteout")  # fmt: skip
    assert made == "1 3 0 0 640\n3\nwhiteout\n"
    for words in ("/root/kmsg c 1 11", "/root/sda b 8 0", "/root/mem c 1 1"):
        assert "not permitted" in sh(other, "c1", f"mknod {words}")
    assert "exists" in sh(other, "c1", "mknod /o/null c 1 3")
    assert "No such file" in sh(other, "c1", "mknod /nowhere/null c 1 3")
    # Those who are not root inside, or only in a namespace of their own, get nothing.
    assert "not permitted" in sh(
        other, "c1", "chmod 777 /root; su -s /bin/sh nobody -c 'mknod /root/n c 1 3'"
    )
    assert "not permitted" in sh(other, "c1", "unshare -U -r mknod /root/n c 1 3")
    lxc(other, "config", "set", "c1", "security.syscalls.intercept.mknod=false")
    assert "not permitted" in sh(other, "c1", "mknod /root/n c 1 3")


def test_folders_of_overlays_are_marked_for_the_instance(other: Member, tmp_path: Path) -> None:
    launch(other, "c1", "security.syscalls.intercept.setxattr=true")
    sh(other, "c1", "mkdir /o; ln -s /o /l; mkdir -m 700 /p; touch /o/f")
    opaque, other_mark = b"trusted.overlay.opaque", b"trusted.other"
    assert call(other, "c1", tmp_path, program(188, b"/l", opaque, b"y", 1, 0)) == 0
    root = Path(f"/proc/{state(other, 'c1')['pid']}/root")
    assert os.getxattr(root / "o", opaque) == b"y"
    assert call(other, "c1", tmp_path, program(189, b"/p", opaque, b"y", 1, 1)) == 0
    assert os.getxattr(root / "p", opaque) == b"y"
    assert call(other, "c1", tmp_path, program(189, b"/p", opaque, b"y", 1, 1)) == errno.EEXIST
    assert call(other, "c1", tmp_path, program(188, b"/o", other_mark, b"y", 1, 0)) == errno.EPERM
    assert call(other, "c1", tmp_path, program(188, b"/o", opaque, b"x", 1, 0)) == errno.EPERM
    assert call(other, "c1", tmp_path, program(188, b"/none", opaque, b"y", 1, 0)) == errno.ENOENT
    assert call(other, "c1", tmp_path, program(190, 9, opaque, b"y", 1, 0)) == errno.EBADF
    assert call(other, "c1", tmp_path, program(188, 1, opaque, b"y", 1, 0)) == errno.EFAULT
    assert call(other, "c1", tmp_path, program(188, b"/o", b"user.mine", b"y", 1, 0)) == 0


def test_sysinfo_tells_what_the_instance_may_have(other: Member) -> None:
    launch(other, "c1", "security.syscalls.intercept.sysinfo=true", "limits.memory=100MiB")
    said = sh(other, "c1", "free -k").splitlines()
    total, used, free = map(int, said[1].split()[1:4])
    assert total == 100 << 10
    assert 0 < used < free < total
    assert said[2].split()[1:] == ["0", "0", "0"]
    lxc(other, "config", "set", "c1", "limits.memory=200MiB")
    assert sh(other, "c1", "free -k").splitlines()[1].split()[1] == str(200 << 10)


def test_scheduling_is_set_for_the_instances_root_and_its_own_threads(
    cluster: Cluster, other: Member, tmp_path: Path
) -> None:
    launch(other, "c1", "security.syscalls.intercept.sched_setscheduler=true")
    init, batch, round_robin = state(other, "c1")["pid"], 3, 2

    def set_scheduler(pid: int, policy: int, priority: int) -> int:
        return call(other, "c1", tmp_path, program(144, pid, policy, struct.pack("<i", priority)))

    assert set_scheduler(1, batch, 0) == 0
    assert os.sched_getscheduler(init) == batch
    assert set_scheduler(1, batch, 4) == errno.EINVAL
    assert set_scheduler(99_999, batch, 0) == errno.ESRCH
    assert call(other, "c1", tmp_path, program(144, 0, 0, 8)) == errno.EFAULT
    share_real_time(cluster.members[0], "c1")
    assert set_scheduler(1, round_robin | os.SCHED_RESET_ON_FORK, 5) == 0
    assert os.sched_getscheduler(init) == round_robin | os.SCHED_RESET_ON_FORK
    assert os.sched_getparam(init).sched_priority == 5
    assert set_scheduler(0, round_robin, 5) == 0
    # Numbers are of the caller's own pid namespace; and those who are not root in the instance get nothing.
    own = "unshare -p -f /call; echo $?; unshare -U -r /call; echo $?; cp /call /tmp; su -s /tmp/call nobody"
    assert set_scheduler(1, 0, 0) == 0
    set_scheduler(1, round_robin, 6)
    assert os.sched_getscheduler(init) == round_robin
    assert set_scheduler(1, 0, 0) == 0
    call(other, "c1", tmp_path, program(144, 0, round_robin, struct.pack("<i", 6)))
    assert sh(other, "c1", f"{own}; echo $?") == f"0\n{errno.EPERM}\n{errno.EPERM}\n"
    assert os.sched_getscheduler(init) == 0


def instruction(code: int, registers: int, offset: int, value: int) -> bytes:
    return struct.pack("=BBhi", code, registers, offset, value)


END = instruction(0x95, 0, 0, 0)
NO_ZERO = b"".join((
    instruction(0x61, 0x12, 4, 0), instruction(0x55, 2, 4, 1),  # unless the major number is 1
    instruction(0x61, 0x12, 8, 0), instruction(0x55, 2, 2, 5),  # and the minor one 5,
    instruction(0xB7, 0, 0, 0), END, instruction(0xB7, 0, 0, 1), END,  # all is allowed
))  # fmt: skip


def load(code: bytes, kind: int = 15) -> tuple[int | Text, ...]:
    """BPF_PROG_LOAD."""
    return 321, 5, Text(struct.pack("=II", kind, len(code) // 8) + bytes(64), {8: code, 16: b"GPL"}), 72


def attach(command: int, flags: int = 0) -> tuple[int | Text, ...]:
    """To what the first call opened, or from there; the program is the second one's."""
    return 321, command, Text(struct.pack("=IIII", 0, 0, 6, flags), {0: Of(0), 4: Of(1)}), 16


def test_programs_that_refuse_devices_are_attached_to_groups_of_the_instances_own(
    other: Member, tmp_path: Path
) -> None:
    bpf, multi = "security.syscalls.intercept.bpf", 2
    launch(other, "c1", f"{bpf}=true", f"{bpf}.devices=true", "security.nesting=true")
    sh(other, "c1", "mkdir /cg; mount -t cgroup2 none /cg; mkdir /cg/sub")
    group, own, folder = ((2, path, os.O_DIRECTORY, 0) for path in (b"/cg/sub", b"/cg", b"/"))

    def done(*calls: tuple[int | bytes | Text | Of, ...]) -> int:
        return call(other, "c1", tmp_path, chain(*calls))

    assert done(group, load(NO_ZERO), attach(8, multi), attach(9)) == 0
    inside = "echo $$ > /cg/sub/cgroup.procs; head -c 1 /dev/zero | wc -c"
    assert sh(other, "c1", inside) == "1\n"
    assert done(group, load(NO_ZERO), attach(8, multi)) == 0
    assert "Operation not permitted" in sh(other, "c1", inside)
    assert sh(other, "c1", "head -c 1 /dev/zero | wc -c") == "1\n"
    assert done(group, load(NO_ZERO), attach(9)) == errno.ENOENT  # not the same program
    for wrong in (own, folder):
        assert done(wrong, load(NO_ZERO), attach(8, multi)) == errno.EPERM
    assert done(group, group, attach(8, multi)) == errno.EINVAL
    for code in (instruction(0x85, 0, 0, 14) + END, instruction(0x18, 0x11, 0, 3) + bytes(8) + END):
        assert done(load(code)) == errno.EPERM
    assert done(load(END)) == errno.EACCES  # the kernel's own word on a program without a result
    assert done(load(NO_ZERO, kind=1)) == errno.EPERM
    assert done(load(NO_ZERO)) == 0
    own_words = "cp /call /tmp; su -s /tmp/call nobody; echo $?; unshare -U -r /call; echo $?"
    assert sh(other, "c1", own_words) == f"{errno.EPERM}\n{errno.EPERM}\n"
    lxc(other, "config", "set", "c1", f"{bpf}.devices=false")
    assert done(load(NO_ZERO)) == errno.EPERM


def share_real_time(owner: Member, name: str) -> None:
    """Let its group have some, where the kernel shares it out by groups."""
    groups = Cgroups(f"lxdpy.{tag_of(owner.folder)}")
    own = groups.payload("cpu", name)
    for folder in (own.parent.parent, own.parent, own, own / "ns"):
        file = folder / "cpu.rt_runtime_us"
        if file.exists():
            file.write_text("10000")


def test_lists_of_calls_and_interception_go_together(other: Member) -> None:
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_char_p
    every = {name.decode() for number in range(470) if (name := resolve(0xC000003E, number))}
    intercept = [f"security.syscalls.intercept.{name}=true" for name in ("mknod", "sysinfo")]
    made = "mknod /root/n c 1 3 && echo made; free | head -2 | tail -1"
    for name, missing in (("c1", {"swapon"}), ("c2", {"mknod", "mknodat", "sysinfo", "seccomp"})):
        allow = "\n".join(sorted(every - missing))
        launch(other, name, f"security.syscalls.allow={allow}", "limits.memory=100MiB", *intercept)
        assert sh(other, name, made).split()[:3] == ["made", "Mem:", str(100 << 10)]
    denied = "security.syscalls.deny=mknod errno 5\nmknodat errno 5"
    launch(other, "c3", denied, *intercept[:1])
    assert "Input/output error" in sh(other, "c3", "mknod /root/n c 1 3")


def test_a_policy_of_the_users_own_asks_only_where_somebody_answers(other: Member) -> None:
    raw = "raw.seccomp=2\ndenylist\n[all]\nsethostname notify\nmknod notify\nmknodat notify\nmkdir errno 17"
    launch(other, "c1", raw, "security.syscalls.intercept.mknod=true")
    said = sh(
        other,
        "c1",
        "mknod /root/n c 1 3 && echo made; hostname new; hostname; mkdir /x; mkfifo /f && echo fifo",
    )
    assert said == "made\nnew\nmkdir: can't create directory '/x': File exists\nfifo\n"
    lxc(other, "stop", "--force", "c1")
    lxc(other, "config", "set", "c1", "security.syscalls.intercept.mknod=false")
    refused = failure(other, "start", "c1")
    assert 'raw.seccomp: "sethostname notify"' in refused
    assert "security.syscalls.intercept" in refused
    assert state(other, "c1")["status"] == "Stopped"


def test_calls_of_32_bit_programs_are_refused_where_the_config_says_so(other: Member, tmp_path: Path) -> None:
    launch(other, "c1", "security.syscalls.deny_compat=true", "security.syscalls.intercept.mknod=true",
           "security.syscalls.deny=sethostname")  # fmt: skip
    old = program(39, b"/root/old", 0o755, old=True)  # mkdir
    assert call(other, "c1", tmp_path, old) == errno.ENOSYS
    assert call(other, "c1", tmp_path, program(83, b"/root/x32", 0o755)) == 0
    assert call(other, "c1", tmp_path, program(1 << 30 | 83, b"/root/new", 0o755)) == errno.ENOSYS
    assert "not implemented" in sh(other, "c1", "hostname x")
    # Its own processes, too.
    call(other, "c1", tmp_path, old)
    sh(other, "c1", "echo '#!/bin/sh\n/call; echo $? > /root/said; sleep 100000' > /root/run; "
       "chmod 755 /root/run; echo ::respawn:/root/run >> /etc/inittab; kill -HUP 1")  # fmt: skip
    eventually(lambda: sh(other, "c1", "cat /root/said") == f"{errno.ENOSYS}\n", within=30)
    assert sh(other, "c1", "mknod /root/n c 1 3 && ls -d /root/n /root/x32") == "/root/n\n/root/x32\n"
    launch(other, "c2")
    assert call(other, "c2", tmp_path, old) == 0


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[list[str]]:
    """Two block devices of the host with an ext4 each, a file of root in it, and a node of the other."""
    found: list[str] = []
    try:
        for name in ("b", "a"):
            tree = tmp_path / name
            tree.mkdir()
            (tree / "file").write_text(name)
            file = tmp_path / f"{name}.img"
            file.write_bytes(b"")
            os.truncate(file, 8 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-d", tree, file], check=True)
            if found:
                other = os.stat(found[0]).st_rdev
                node = f"mknod b b {os.major(other)} {os.minor(other)}"
                subprocess.run(["debugfs", "-w", "-R", node, file], check=True, capture_output=True)
            found.append(
                subprocess.run(
                    ["losetup", "--show", "-f", file], check=True, capture_output=True, text=True
                ).stdout.strip()
            )
        yield found[::-1]
    finally:
        for device in found:
            subprocess.run(["losetup", "-d", device], check=True)


def test_file_systems_on_the_list_are_mounted_for_the_instance(other: Member, disks: list[str]) -> None:
    launch(other, "c1", "security.syscalls.intercept.mount=true")
    lxc(other, "config", "device", "add", "c1", "a", "unix-block", f"source={disks[0]}", "path=/dev/a")
    mount = "mkdir -p /mnt/a; cd /dev; mount -t ext4 a /mnt/a"
    assert "denied" in sh(other, "c1", mount)
    lxc(other, "config", "set", "c1", "security.syscalls.intercept.mount.allowed=ext4,hugetlbfs")
    assert sh(other, "c1", f"{mount}; cat /mnt/a/file; stat -c ' %u' /mnt/a/file") == "a 65534\n"
    assert sh(other, "c1", "grep /mnt/a /proc/mounts").startswith("/a /mnt/a ext4 rw,nodev,")
    assert sh(other, "c1", "umount /mnt/a; ls /mnt/a") == ""
    lxc(other, "config", "set", "c1", "security.syscalls.intercept.mount.shift=true")
    assert sh(other, "c1", f"{mount} -o noexec; echo new > /mnt/a/file; stat -c %u /mnt/a/file") == "0\n"
    assert "noexec" in sh(other, "c1", "grep /mnt/a /proc/mounts")
    # What it was not given stays out of reach, and so does what is not on the list.
    assert sh(other, "c1", "test -b /mnt/a/b && echo there") == "there\n"
    for words in ("-t ext4 /mnt/a/b /mnt", f"-t ext4 -o journal_path={disks[1]} /dev/a /mnt",
                  "-t ext4 -o journal_dev=7 /dev/a /mnt", "-t ext4 -o errors=panic /dev/a /mnt",
                  "-t ext4 /none /mnt", "-t ext4 /etc/passwd /mnt", "-t xfs /dev/a /mnt"):  # fmt: skip
        assert "mount: " in sh(other, "c1", f"mount {words}"), words
    assert sh(other, "c1", "mkdir /t; mount -t tmpfs none /t; mount --bind /root /t; umount /t") == ""
    assert sh(other, "c1", "unshare -m sh -c 'umount /mnt/a; mount -t ext4 /dev/a /mnt/a; cat /mnt/a/file'; "
              "umount /mnt/a") == "new\n"  # fmt: skip
    assert "mount: " in sh(other, "c1", "unshare -U -r -m mount -t ext4 /dev/a /mnt/a")
    assert sh(other, "c1", "mkdir /huge; mount -t hugetlbfs none /huge; stat -c '%u %g' /huge") == "0 0\n"


STATUS = (
    "grep -E '^(Seccomp:|Cap|NoNew)' /proc/self/status; cat /proc/self/cgroup; ulimit -n; "
    "stat -Lc %i /proc/self/ns/*"
)
OWN_FUSE = f"""#!/bin/sh
exec > "$2.said"
echo "$@"; pwd; {STATUS}; hostname x 2>&1
ls -l /proc/$$/fd > "$2.open"
mount -t tmpfs own "$2"
"""


def test_file_systems_are_mounted_by_programs_of_the_instances_own_that_may_no_more_than_it_may(
    other: Member, tmp_path: Path
) -> None:
    mount = "security.syscalls.intercept.mount"
    launch(other, "c1", f"{mount}=true", f"{mount}.fuse=ext4=own-fuse,xfs=failing,btrfs=/none",
           "security.syscalls.deny=sethostname errno 5", "limits.kernel.nofile=300:400")  # fmt: skip
    for name, text in (("own-fuse", OWN_FUSE), ("failing", "#!/bin/sh\nexit 3\n")):
        (tmp_path / name).write_text(text)
        lxc(other, "file", "push", "--mode=0755", str(tmp_path / name), f"c1/bin/{name}")
    # One that LXC passes on, of the container's own process, and one of a program that is started in it.
    sh(other, "c1", "mkdir /mnt/a /mnt/b; "
       "echo '#!/bin/sh\nmount -t ext4 /dev/b /mnt/b; sleep 100000' > /root/run; "
       "chmod 755 /root/run; echo ::respawn:/root/run >> /etc/inittab; kill -HUP 1")  # fmt: skip
    eventually(lambda: "own on /mnt/b " in sh(other, "c1", "mount"), within=60)
    assert "own on /mnt/a " in sh(other, "c1", "cd /mnt; mount -t ext4 -o ro,one=2 /dev/a /mnt/a; mount")
    said = sh(other, "c1", "cat /mnt/a.said").splitlines()
    assert said[:2] == ["/dev/a /mnt/a -o one=2,ro", "/mnt"]
    assert said[2:-1] == sh(other, "c1", STATUS).splitlines()
    assert said[-1] == "hostname: sethostname: Input/output error"
    for name in ("a", "b"):
        found = sh(other, "c1", f"cat /mnt/{name}.open").splitlines()
        opened = {line.partition(" -> ")[2] for line in found if " -> " in line}
        assert opened <= {"/dev/null", f"/mnt/{name}.said", f"/mnt/{name}.open", "/bin/own-fuse"}
    assert "No such device" in sh(other, "c1", "mount -t btrfs /dev/a /mnt")
    assert "Invalid argument" in sh(other, "c1", "mount -t xfs /dev/a /mnt")
    assert "mount: " in sh(other, "c1", "unshare -U -r -m mount -t ext4 /dev/a /mnt")
    both = failure(other, "config", "set", "c1", f"{mount}.allowed=ext4")
    assert f"Filesystem ext4 cannot appear in {mount}.allowed and {mount}.fuse" in both
    lxc(other, "init", "busybox", "c2", "--target", "n1", "-c", f"{mount}=true", "-c", f"{mount}.fuse=xfs=x",
        "-c", "raw.seccomp=2\ndenylist\n[x86_64]\nmkdir errno 1")  # fmt: skip
    assert f'{mount}.fuse: "[x86_64]" of its policy' in failure(other, "start", "c2")
    wrong = failure(other, "config", "set", "c1", f"{mount}.fuse=ext4")
    assert f'{mount}.fuse: "ext4" is not a list' in wrong


def test_calls_are_made_without_the_daemon_and_fail_at_once_without_the_process(
    cluster: Cluster, other: Member
) -> None:
    owner = cluster.members[0]
    launch(other, "c1", "security.syscalls.intercept.mknod=true", "security.syscalls.intercept.sysinfo=true",
           "limits.memory=100MiB")  # fmt: skip
    (process,) = interceptors(owner)
    inside = Path(f"/proc/{state(other, 'c1')['pid']}/root/root")
    # Of the container's own: what is started from outside has a listener of its own.
    sh(other, "c1", "touch /root/go1 /root/go2 /root/go3; echo '#!/bin/sh\n"
       "for n in 1 2 3; do until test -s /root/go$n; do usleep 20000; done; "
       "mknod /root/null$n c 1 3 2> /root/said$n.new; mv /root/said$n.new /root/said$n; done; "
       "sleep 100000' > /root/calls; chmod 755 /root/calls; "
       "echo ::respawn:/root/calls >> /etc/inittab; kill -HUP 1")  # fmt: skip

    def said(number: int) -> str:
        (inside / f"go{number}").write_text("go")  # by no new file: the host's root has no id in there
        eventually((inside / f"said{number}").exists, within=30)
        return (inside / f"said{number}").read_text()

    owner.kill()
    assert said(1) == ""
    assert (inside / "null1").is_char_device()
    os.kill(process, signal.SIGKILL)
    eventually(lambda: interceptors(owner) == [], within=30)
    assert "not implemented" in said(2)
    owner.start()
    # What is started meanwhile has its calls left to the kernel: it is not refused.
    made = "rm -f /root/m; mknod /root/m c 1 3 && echo made"
    eventually(lambda: sh(other, "c1", made) == "made\n", within=60)
    assert said(3) == ""
    assert sh(other, "c1", "free -k").splitlines()[1].split()[1] == str(100 << 10)
    init = state(other, "c1")["pid"]
    sh(other, "c1", "reboot -f")
    eventually(lambda: state(other, "c1")["pid"] not in (0, init), within=60)
    eventually(lambda: sh(other, "c1", made) == "made\n", within=60)
    lxc(other, "stop", "--force", "c1")
    eventually(lambda: interceptors(owner) == [], within=30)
