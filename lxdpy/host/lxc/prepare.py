"""Files of a container around its start. All of it blocks for some 0.1 ms: call it in a thread."""

import contextlib
import os
import re
import shutil
import signal
import stat
import sys
from pathlib import Path

from lxdpy.host.cgroups import Cgroups
from lxdpy.host.idmap import Idmap, of_process
from lxdpy.host.intercept.joining import quiet
from lxdpy.host.lxc import config
from lxdpy.host.lxc.spec import ContainerSpec, DeviceNode
from lxdpy.host.lxc.uevent import facts_of
from lxdpy.host.paths import InstancePaths

NOTES = "uevent."  # before the names of staged nodes
LAST_ERRORS = 3  # lines of LXC's log in an error: the first of them is the cause, the rest tells the way up
LOG_TAIL = 16_384  # bytes
LXC_START = "/usr/bin/lxc-start"
NATIVE = "import sys; sys.path[:0] = [sys.argv[1]]; from lxdpy.host.lxc.native import main; main()"
SOURCES = Path(__file__).parents[3]
SIGRTMIN = 34  # glibc's

ERROR = re.compile(r"^lxc\S* \S+ \S+ ERROR +\S+ +- \S+:\d+ - (?P<message>.*)$", re.MULTILINE)
"""One line of LXC's log: program, container, time, level, part, place in the source, message."""


def prepare(spec: ContainerSpec, paths: InstancePaths, cgroups: Cgroups, sysfs: Path) -> None:
    """Make folders, device nodes, seccomp policy and configuration, as `lxc-start` is to find them."""
    files = config.Files(
        logs=str(paths.logs), run=str(paths.run), devices=str(paths.devices), groups=cgroups.prefix
    )
    shared = tuple(mount for mount in config.HOST_MOUNTS if os.path.exists(mount.source))
    text = config.text(config.lines(spec, files, cgroups.layout, shared))
    for folder in (paths.logs, paths.run):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for node in spec.devices:
        stage(node, paths.devices, spec.idmap)
        note(node, paths.devices, sysfs)
    if spec.first:
        paths.devices.mkdir(mode=0o711, parents=True, exist_ok=True)
        first = paths.devices / config.FIRST
        first.write_text(f"#!/bin/sh\n{spec.first}")
        first.chmod(0o755)  # its ids are not the container's
    with contextlib.suppress(FileNotFoundError):
        paths.log.rename(paths.log.with_suffix(".log.old"))
    paths.pid_file.unlink(missing_ok=True)
    paths.native.unlink(missing_ok=True)
    if spec.native_only:
        paths.native.touch()
    if spec.seccomp:
        paths.seccomp.write_text(spec.seccomp)
        if (quieter := quiet(spec.seccomp)) != spec.seccomp:
            paths.quiet_seccomp.write_text(quieter)
    draft = paths.config.with_suffix(".new")
    draft.write_text(text)
    draft.replace(paths.config)


def starter(paths: InstancePaths) -> tuple[str, ...]:
    """The words to start it with, but for its name and files."""
    if not paths.native.exists():
        return (LXC_START,)
    return (sys.executable, "-I", "-S", "-c", NATIVE, str(SOURCES), LXC_START)


def clean(paths: InstancePaths) -> None:
    """Remove what is only of use to a running container. Idempotent."""
    shutil.rmtree(paths.run, ignore_errors=True)
    # Only what is ours: device drivers may have mounts of the container's disks here.
    for pattern in ("unix.*", f"{NOTES}*"):
        for node in paths.devices.glob(pattern):
            node.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        paths.devices.rmdir()


def stage(node: DeviceNode, folder: Path, idmap: Idmap | None) -> Path:
    """The host's side of a device node, owned by the container's ids, to be mounted into it. Idempotent.

    A container may not make nodes, and one in its root would show through an id map as nobody's.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = folder / node.staged
    path.unlink(missing_ok=True)
    kind = stat.S_IFCHR if node.kind == "c" else stat.S_IFBLK
    os.mknod(path, kind | node.mode, os.makedev(node.major, node.minor))
    os.chmod(path, node.mode)  # the umask has no say in this
    if idmap:
        os.chown(path, idmap.host(node.uid), idmap.host_group(node.gid))
    else:
        os.chown(path, node.uid, node.gid)
    return path


def note(node: DeviceNode, folder: Path, sysfs: Path) -> list[str]:
    """What the kernel says of a device, kept for when it is gone; see `lxdpy.host.lxc.uevent`."""
    facts = facts_of(sysfs, node.kind, node.major, node.minor, node.path)
    if facts:
        (folder / f"{NOTES}{node.staged}").write_text("\0".join(facts))
    return facts


def stage_for(node: DeviceNode, folder: Path, init: int, sysfs: Path) -> tuple[Path, list[str]]:
    """`stage` and `note`, for the running container whose first process is `init`."""
    return stage(node, folder, idmap_of(init)), note(node, folder, sysfs)


def unstage(node: DeviceNode, folder: Path) -> list[str]:
    """Remove the host's side; returns what `note` has kept, [] for nothing. Idempotent."""
    (folder / node.staged).unlink(missing_ok=True)
    file = folder / f"{NOTES}{node.staged}"
    text = _text(file)
    file.unlink(missing_ok=True)
    return text.split("\0") if text else []


def read_pid(file: Path) -> int:
    """0 if there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def idmap_of(pid: int) -> Idmap | None:
    """The map a container runs with; None if it is privileged."""
    users, groups = (Path(f"/proc/{pid}/{file}").read_text() for file in ("uid_map", "gid_map"))
    return of_process(users, groups)


def halt_signal(file: Path) -> int:
    """`lxc.signal.halt` of a configuration, 0 if it says nothing."""
    found = re.search(r"^lxc\.signal\.halt = (?:SIG)?(\w+)$", _text(file), re.MULTILINE)
    if not found:
        return 0
    word = found[1]
    return int(word) if word.isdigit() else getattr(signal, f"SIG{word}", signal.SIGPWR)


def usual_halt_signal(init: int) -> int:
    """systemd listens for SIGRTMIN+3, by blocking it and reading a signalfd; others take SIGPWR."""
    number = SIGRTMIN + 3
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{init}/status").read_text().splitlines()
        blocked = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
        if blocked >> (number - 1) & 1:
            return number
    return signal.SIGPWR


def errors_of(log: Path) -> str:
    """The last errors in LXC's log, in one line; "" if there are none."""
    messages = [match["message"].strip() for match in ERROR.finditer(_text(log)[-LOG_TAIL:])]
    return "; ".join(messages[:LAST_ERRORS])


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
