"""Real containers for tests, out of everybody's way: a busybox root, and namespaces no packet leaves."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

from lxdpy.host.idmap import Idmap
from lxdpy.host.lxc import seccomp
from lxdpy.host.lxc.client import ExecRequest
from lxdpy.host.lxc.runtime import Runtime
from lxdpy.host.lxc.spec import ContainerSpec

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
TAG = os.environ.setdefault("LXDPY_TEST_TAG", f"test{os.getpid()}")  # as do the programs that tests start
APPLETS = [
    "sh", "ls", "cat", "echo", "id", "sleep", "true", "false", "stty", "tty", "env", "kill", "ps", "pwd",
    "dd",
    "nproc", "touch", "stat", "grep", "mknod", "mount", "ip", "reboot", "poweroff", "readlink", "rm", "head",
    "wc", "mkdir", "ln", "seq", "cut", "ping", "test",
]  # fmt: skip
INIT = "#!/bin/sh\ntrap 'exit 0' PWR\nwhile :; do sleep 1 & wait; done\n"
PATH = {"PATH": "/bin:/sbin"}

Scenario = Callable[[Runtime, Path], Awaitable[None]]


def busybox_root(target: Path) -> Path:
    """A root file system with one program and an init that ends on SIGPWR."""
    for folder in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "mnt"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", target / "bin/busybox")
    for name in APPLETS:
        (target / "bin" / name).symlink_to("busybox")
    (target / "sbin/init").write_text(INIT)
    (target / "sbin/init").chmod(0o755)
    (target / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    return target


def spec(folder: Path, name: str = "c1", **changes: object) -> ContainerSpec:
    """A container on the busybox root of `folder`, made when it is not there."""
    rootfs = folder / "rootfs"
    if not rootfs.exists():
        busybox_root(rootfs)
    values: dict[str, object] = {
        "name": name, "rootfs": str(rootfs), "idmap": Idmap(1_000_000), "seccomp": seccomp.policy()
    }  # fmt: skip
    return ContainerSpec(**(values | changes))  # type: ignore[arg-type]


async def sh(runtime: Runtime, name: str, script: str) -> str:
    """What a shell script in the container says, errors included."""
    return (await ran(runtime, name, ExecRequest(("sh", "-c", script), PATH)))[1]


async def ran(runtime: Runtime, name: str, request: ExecRequest) -> tuple[int, str]:
    """Exit status and all output."""
    ours, theirs = os.pipe()
    nothing = os.open("/dev/null", os.O_RDONLY)
    try:
        session = await runtime.exec(name, request, (nothing, theirs, theirs))
    finally:
        os.close(theirs)
        os.close(nothing)
    with os.fdopen(ours, "rb") as out:
        said = await asyncio.to_thread(out.read)
    return await session.wait(), said.decode()


def in_namespaces(scenario: Scenario, *, unified: bool = False) -> None:
    """Run `scenario(runtime, folder)` in a child of its own; what it raises fails the test.

    The child has a network namespace with a matching /sys, and a mount namespace that keeps the control
    groups; `unified`: shows them as a host without v1 would. Afterwards nothing may be left: no process,
    no control group.
    """
    folder = Path(tempfile.mkdtemp(prefix="lxdpy-", dir="/var/tmp"))
    folder.chmod(0o711)  # the containers' root must be able to pass
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(scenario, folder, theirs, unified)
    os.close(theirs)
    with os.fdopen(ours) as out:
        trouble = out.read()
    _, status = os.waitpid(child, 0)
    left = _left_behind(folder)
    shutil.rmtree(folder)
    shutil.rmtree(f"/run/lxc/lock{folder}", ignore_errors=True)  # empty folders of liblxc's locks
    assert not trouble, trouble
    assert status == 0
    assert not left, left


def _in_child(scenario: Scenario, folder: Path, theirs: int, unified: bool) -> NoReturn:
    try:
        signal.alarm(0)
        _separate(folder, unified)
        asyncio.run(_run(scenario, folder))
        os._exit(0)
    except BaseException:
        os.write(theirs, traceback.format_exc().encode()[-60_000:])
        os._exit(1)


async def _run(scenario: Scenario, folder: Path) -> None:
    runtime = Runtime(folder / "lxd", tag=TAG)
    await runtime.start()
    try:
        async with asyncio.timeout(90):
            await scenario(runtime, folder)
    finally:
        await runtime.stop()


def _separate(folder: Path, unified: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    kept = folder / "cgroups"
    kept.mkdir()
    keep = f"mount --rbind /sys/fs/cgroup {kept}"
    give = f"mount --rbind {kept} /sys/fs/cgroup"
    if unified:
        keep, give = f"mount -t tmpfs none {kept}", "mount -t cgroup2 none /sys/fs/cgroup"
    script = ("mount --make-rprivate /", keep, "umount -R /sys/fs/cgroup", "mount -t sysfs sysfs /sys", give)
    for line in (*script, f"umount -l {kept}", "ip link set lo up"):
        subprocess.run(line.split(), check=True)
    kept.rmdir()


def _left_behind(folder: Path) -> list[str]:
    """Processes and control groups of the test that are still there; processes are ended."""
    deadline = time.monotonic() + 5
    while left := [*processes(folder), *_groups()]:
        if time.monotonic() > deadline:
            for process in processes(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.split()[0]), signal.SIGKILL)
            return left
        time.sleep(0.05)
    return []


def processes(folder: Path) -> list[str]:
    """Those that have it in their words, with these."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (line := (entry / "cmdline").read_bytes()):
                found.append(f"{entry.name} {line.decode(errors='replace')}")
    return found


def _groups() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/lxdpy.{TAG}")]


def alive(pid: int) -> bool:
    """Whether the process exists and is not just waiting for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def python(code: str, *arguments: object) -> list[str]:
    """Words that run `code` with this project in reach."""
    boot = f"import sys; sys.path[:0] = [{str(Path(__file__).parents[1])!r}]\n{code}"
    return [sys.executable, "-c", boot, *map(str, arguments)]
