"""Systemd in unprivileged containers: it boots, finds the network, ends in order, and sees only its own.

All that is asked of a container is asked through members that do not own it.
"""

import base64
import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.harness import eventually, lxc, lxc_try
from integration.instances import BOOT, LEASE, address, clear, debian, instance, is_up, sh, state
from lxdpy.dev.api import Refused
from lxdpy.dev.members import Cluster, Member
from lxdpy.dev.netns import run

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
MANY = 6  # containers
AT_ONCE = 3  # of them
INOTIFY = (
    120  # instances: of fs.inotify's default of 128, all users of a host together, what is left is for two
)
LIBC = ctypes.CDLL(None)
HUNDRED_AND_SIXTY_MIB = "head -c 160M /dev/zero | tail | wc -c"  # tail keeps what has no end of line
FORKS = "n=0; while [ $n -lt 400 ]; do sleep 30 & n=$((n+1)); done; wait"
STOPPED_IN_ORDER = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=touch /root/ended
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module", autouse=True)
def image(cluster: Cluster) -> None:
    lxc(cluster.members[1], "image", "import", str(debian()), "--alias", "debian")


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    yield
    clear(cluster.members[0])


def booted(cluster: Cluster, name: str, *words: str, owner: int = 0) -> None:
    """Launch a container on a member, through another, and wait until systemd is up."""
    via = cluster.members[owner - 1]
    lxc(via, "launch", "debian", name, "--target", cluster.members[owner].name, *words)
    eventually(lambda: is_up(via, name), within=BOOT)


def beginning(member: Member, name: str) -> str:
    """Of process 1, in ticks since the host's boot."""
    return sh(member, name, "cut -d' ' -f22 /proc/1/stat").strip()


def test_it_boots_finds_its_address_and_ends_in_order(cluster: Cluster) -> None:
    one, two, three = cluster.members
    booted(cluster, "c1")
    assert instance(three, "c1")["location"] == one.name
    own = eventually(lambda: address(three, "c1"), within=LEASE)
    assert own in sh(two, "c1", "ip -4 -o addr show eth0")
    eventually(lambda: own in lxc(two, "list", "c1"), within=LEASE)  # its owner tells it now and then
    unit = "/etc/systemd/system/ended.service"
    lxc(
        two,
        "exec",
        "c1",
        "--",
        "sh",
        "-c",
        f"cat >{unit}; systemctl enable --now ended",
        stdin=STOPPED_IN_ORDER,
    )
    lxc(three, "stop", "c1", "--timeout", "30")
    eventually(lambda: instance(two, "c1")["status"] == "Stopped", within=LEASE)
    lxc(two, "start", "c1")
    eventually(lambda: is_up(three, "c1"), within=BOOT)
    assert sh(three, "c1", "ls /root").split() == ["ended"], "it was killed, not stopped"
    assert eventually(lambda: address(two, "c1"), within=LEASE) == own
    before = beginning(two, "c1")
    lxc(three, "restart", "c1", "--timeout", "30")
    assert beginning(two, "c1") != before


def test_a_reboot_and_a_poweroff_from_inside_are_noticed(cluster: Cluster) -> None:
    _, two, three = cluster.members
    booted(cluster, "c1")
    before = beginning(two, "c1")
    lxc_try(two, "exec", "c1", "--", "systemctl", "reboot")
    eventually(lambda: is_up(three, "c1") and beginning(two, "c1") != before, within=BOOT)
    eventually(lambda: instance(two, "c1")["status"] == "Running", within=15)
    eventually(lambda: address(three, "c1"), within=LEASE)
    lxc_try(three, "exec", "c1", "--", "systemctl", "poweroff")
    eventually(lambda: instance(two, "c1")["status"] == "Stopped", within=BOOT)
    lxc(two, "start", "c1")
    eventually(lambda: is_up(three, "c1"), within=BOOT)


def test_root_inside_is_nobody_outside_and_no_two_are_the_same(cluster: Cluster) -> None:
    _, two, three = cluster.members
    booted(cluster, "c1")
    booted(cluster, "c2")
    maps = {tuple(map(int, sh(two, name, "cat /proc/self/uid_map").split())) for name in ("c1", "c2")}
    assert len(maps) == 2
    (_, low, size), (_, high, _) = sorted(maps)
    assert low >= 1_000_000
    assert low + size <= high, "two containers have host ids in common"
    for name in ("c1", "c2"):
        status = Path(f"/proc/{state(three, name)['pid']}/status").read_text()
        fields = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
        assert int(fields["Uid"][0]) in (low, high)
        assert fields["Seccomp"] == ["2"]
        in_exec = sh(three, name, "grep Seccomp: /proc/self/status")
        assert in_exec.split() == ["Seccomp:", "2"], "programs run by exec are filtered as well"


def test_what_belongs_to_the_host_is_refused_or_not_seen(cluster: Cluster) -> None:
    _, two, three = cluster.members
    booted(cluster, "c1")
    refused = {
        "mknod /tmp/null c 1 3": "not permitted",
        "mknod /tmp/disk b 8 0": "not permitted",
        "date --set=12:00": "not permitted",
        "dmesg": "not permitted",
        "swapoff -a; echo 1 >/proc/sys/kernel/panic": "denied",
        "echo 1 >/proc/sys/vm/swappiness": "denied",
        "echo 1 >/sys/kernel/mm/transparent_hugepage/enabled": "denied",
        "mount -t cgroup2 none /mnt && echo 1 >/mnt/cgroup.max.depth": "denied",
        "ls /sys/kernel/debug/* /sys/kernel/tracing/*": "No such file",
    }
    for script, why in refused.items():
        assert why in sh(two, "c1", script), script
    assert sh(two, "c1", "echo 1 >/proc/sys/net/ipv4/ip_forward") == "", "the network is its own"
    seen = sh(three, "c1", "cat /proc/self/mountinfo /proc/1/environ /proc/1/cgroup /proc/*/cmdline")
    assert str(cluster.state) not in seen
    assert "lxdpy" not in seen
    assert sh(three, "c1", "ls /sys/class/net").split() == ["eth0", "lo"]
    fds = sh(three, "c1", "ls -l /proc/self/fd | grep -v -e ' 3 -> /proc' -e total | wc -l").strip()
    assert fds == "3", "a program run by exec gets its own three files and no others"


def cpu_share(member: Member, name: str) -> float:
    """CPUs that a busy loop of a second gets, as the kernel counts."""
    used, began = state(member, name)["cpu"]["usage"], time.monotonic()
    sh(member, name, "timeout 1 sh -c 'while :; do :; done'")
    return float(state(member, name)["cpu"]["usage"] - used) / 1e9 / (time.monotonic() - began)


def test_limits_hold_from_the_start(cluster: Cluster) -> None:
    _, two, three = cluster.members
    limits = (
        "limits.cpu=1",
        "limits.memory=128MiB",
        "limits.processes=120",
        "limits.cpu.allowance=30ms/100ms",
    )
    booted(cluster, "c1", *(word for limit in limits for word in ("-c", limit)))
    assert sh(two, "c1", "nproc").strip() == "1"
    assert "Killed" in sh(three, "c1", HUNDRED_AND_SIXTY_MIB)
    assert is_up(two, "c1"), "what was killed is the hog, and nothing else"
    assert "Cannot fork" in sh(two, "c1", FORKS, timeout=90)
    assert cpu_share(three, "c1") < 0.45


def test_a_fork_bomb_stays_inside_and_can_be_ended(cluster: Cluster) -> None:
    one, two, three = cluster.members
    booted(cluster, "c1", "-c", "limits.processes=150", "-c", "limits.cpu.allowance=20ms/100ms")
    bomb = ("perl", "-e", "while (1) { fork }")  # none of its processes ends by itself
    lxc(two, "exec", "c1", "--", "systemd-run", "--quiet", "--property=TasksMax=infinity", *bomb)
    eventually(lambda: state(three, "c1")["processes"] > 140, within=60)
    for _ in range(10):
        assert state(three, "c1")["processes"] <= 150
    lxc(three, "stop", "c1", "--force")
    eventually(lambda: instance(two, "c1")["status"] == "Stopped", within=30)
    assert one.ask("GET", "/1.0/instances/c1/state")["processes"] == 0


def test_limits_follow_a_running_container(cluster: Cluster) -> None:
    _, two, three = cluster.members
    booted(cluster, "c1")

    def now(*settings: str) -> None:
        lxc(two, "config", "set", "c1", *settings)

    cpus = sorted(os.sched_getaffinity(0))
    for cpu in (cpus[0], cpus[-1]):  # apart from each other: neither set is part of the other
        now(f"limits.cpu={cpu}-{cpu}")
        assert sh(three, "c1", "grep Cpus_allowed_list /proc/self/status").split()[1] == str(cpu)
    now("limits.cpu=1", "limits.memory=128MiB", "limits.processes=120", "limits.cpu.allowance=30ms/100ms")
    assert sh(three, "c1", "nproc").strip() == "1"
    assert "Killed" in sh(three, "c1", HUNDRED_AND_SIXTY_MIB)
    assert cpu_share(two, "c1") < 0.45
    assert "Cannot fork" in sh(three, "c1", FORKS, timeout=90)
    now("limits.cpu=", "limits.memory=400MiB", "limits.processes=", "limits.cpu.allowance=")
    assert sh(three, "c1", "nproc").strip() == str(len(cpus))
    assert sh(three, "c1", HUNDRED_AND_SIXTY_MIB).strip() == str(160 << 20)
    assert "fork" not in sh(three, "c1", FORKS.replace("30", "0"), timeout=90)


def test_a_change_that_cannot_be_had_in_full_is_not_made_in_part(cluster: Cluster) -> None:
    _, two, three = cluster.members
    booted(cluster, "c1", "-c", "limits.memory=256MiB")
    cpu = max(os.sched_getaffinity(0)) + 1
    refused = lxc_try(two, "config", "set", "c1", "limits.memory=128MiB", f"limits.cpu={cpu}-{cpu}")
    assert refused.status
    assert str(cpu) in refused.err
    nowhere = {"type": "disk", "source": "/nowhere", "path": "/mnt"}
    body = {"config": {"limits.memory": "128MiB"}, "devices": {"data": nowhere}}
    with pytest.raises(Refused, match="/nowhere"):
        two.ask("PATCH", "/1.0/instances/c1", body)
    assert lxc(three, "config", "get", "c1", "limits.memory").strip() == "256MiB"
    assert sh(three, "c1", HUNDRED_AND_SIXTY_MIB).strip() == str(160 << 20)
    assert "data" not in instance(three, "c1")["devices"]


INNER = """\
mkdir -p /srv/box/bin /srv/box/proc && cd /srv/box && base64 -d >bin/busybox && chmod 755 bin/busybox
cat >inside <<'END'
mkdir -p old && pivot_root . old && /bin/busybox umount -l /old
/bin/busybox hostname inner
/bin/busybox echo $(/bin/busybox hostname) $$ $(/bin/busybox id -u) $(/bin/busybox ls /)
END
unshare --user --map-root-user --mount --pid --fork --uts --ipc --net --cgroup sh -c '
    mount --bind /srv/box /srv/box && cd /srv/box && mount -t proc proc proc && . ./inside'
"""


def test_a_container_runs_in_a_container_that_nests(cluster: Cluster) -> None:
    _, two, three = cluster.members
    busybox = base64.b64encode(Path("/bin/busybox").read_bytes()).decode()
    booted(cluster, "plain")
    booted(cluster, "nests", "-c", "security.nesting=true")
    own_proc = "unshare --user --map-root-user --mount --pid --fork --mount-proc"
    assert "not permitted" in sh(two, "plain", f"{own_proc} true")
    assert sh(two, "nests", f"{own_proc} ps -o pid= 1").split() == ["1"]
    said = lxc(three, "exec", "nests", "--", "sh", "-c", INNER, stdin=busybox).split()
    assert said[:3] == ["inner", "1", "0"], said
    assert set(said[3:]) == {"bin", "inside", "old", "proc"}
    assert sh(two, "nests", "hostname").strip() == "nests"


def test_a_privileged_container_works_within_its_bounds(cluster: Cluster) -> None:
    _, two, three = cluster.members
    booted(cluster, "c1", "-c", "security.privileged=true")
    assert sh(two, "c1", "cat /proc/self/uid_map").split() == ["0", "0", "4294967295"]
    eventually(lambda: address(three, "c1"), within=LEASE)
    bounding = int(sh(two, "c1", "grep CapBnd /proc/self/status").split()[1], 16)
    lost = {"sys_module": 16, "sys_rawio": 17, "sys_time": 25, "mac_override": 32, "mac_admin": 33}
    assert not any(bounding >> number & 1 for number in lost.values())
    assert sh(three, "c1", "grep Seccomp: /proc/1/status").split() == ["Seccomp:", "2"]
    assert "Read-only" in sh(two, "c1", "echo 1 >/proc/sys/kernel/panic")
    assert "Read-only" in sh(two, "c1", "echo 1 >/sys/kernel/mm/transparent_hugepage/enabled")
    assert "not permitted" in sh(two, "c1", "mknod /tmp/disk b 8 0 && dd if=/tmp/disk of=/dev/null count=1")
    assert "mounted" in sh(two, "c1", "mount -t tmpfs none /mnt && echo mounted"), "and that is its use"
    lxc(three, "stop", "c1", "--timeout", "30")


def on(member: Member, *words: str) -> None:
    run(*member.net.enter(member.name, *words))


def test_lxcfs_shows_a_container_its_limits_and_may_be_missing(cluster: Cluster) -> None:
    one, two, three = cluster.members
    for member in (one, two):  # whatever the host has: these namespaces have it no more
        on(member, "sh", "-c", "umount -l /var/lib/lxcfs 2>/dev/null; mkdir -p /var/lib/lxcfs")
    pid_file = cluster.state / "lxcfs.pid"  # lxcfs removes it at its end, whatever it is
    words = one.net.enter(one.name, "lxcfs", "-f", "--enable-cfs", f"--pidfile={pid_file}", "/var/lib/lxcfs")
    lxcfs = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: on(one, "test", "-e", "/var/lib/lxcfs/proc/meminfo"), within=10)
        limits = ("-c", "limits.memory=256MiB", "-c", "limits.cpu=1")
        began = time.monotonic()
        booted(cluster, "with", *limits, owner=0)
        booted(cluster, "without", *limits, owner=1)
        memory = "grep MemTotal /proc/meminfo"
        uptime = "cut -d. -f1 /proc/uptime"
        cpus = "grep -c ^processor /proc/cpuinfo"
        assert sh(three, "with", memory).split()[1] == str(256 << 10)
        assert sh(three, "with", cpus).strip() == "1"
        own, since = int(sh(three, "with", uptime)), time.monotonic() - began
        assert own <= since + 1 < int(Path("/proc/uptime").read_text().split(".")[0])
        lxc(three, "config", "set", "with", "limits.memory=300MiB")
        assert sh(three, "with", memory).split()[1] == str(300 << 10)
        host = Path("/proc/meminfo").read_text().splitlines()[0]
        assert sh(three, "without", memory).split() == host.split()
        assert "Killed" in sh(three, "without", HUNDRED_AND_SIXTY_MIB.replace("160M", "400M"))
    finally:
        clear(three)
        on(one, "umount", "-l", "/var/lib/lxcfs")
        lxcfs.wait(timeout=10)


@contextlib.contextmanager
def inotify_taken() -> Iterator[None]:
    """As by some thirty containers: the kernel counts those of unprivileged ones for root of the host."""
    with contextlib.ExitStack() as leaving:
        for _ in range(INOTIFY):
            instance = LIBC.inotify_init1(os.O_CLOEXEC)
            assert instance >= 0
            leaving.callback(os.close, instance)
        yield


def test_more_systemd_containers_start_than_the_kernel_lets_by_default(cluster: Cluster) -> None:
    names = [f"c{number}" for number in range(MANY)]

    def launch(number: int) -> None:
        lxc(cluster.members[number % 3], "launch", "debian", names[number], timeout=200)

    with inotify_taken():
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(launch, range(MANY)))
        for number, name in enumerate(names):
            via = cluster.members[number % 3]
            eventually(lambda via=via, name=name: is_up(via, name), within=2 * BOOT)  # type: ignore[misc]
    places = [row["location"] for row in cluster.members[1].ask("GET", "/1.0/instances?recursion=1")]
    counts = sorted(places.count(member.name) for member in cluster.members)
    assert counts[-1] - counts[0] <= AT_ONCE, "those placed at the same time do not see each other"
