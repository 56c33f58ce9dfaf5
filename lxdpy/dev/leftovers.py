"""What clusters leave on this host: take it away, or list it, as `python -m lxdpy.dev.leftovers` does."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lxdpy.dev.netns import NETNS, PINS, pids, run

END_WITHIN = 15.0  # seconds for killed processes to be gone; a container's end waits for its mounts
PAUSE = 0.02  # seconds between looks
CGROUPS = Path("/sys/fs/cgroup")
OURS = "lxdpy"  # first part of the names of our namespaces, state folders and control groups
GROUPS = (OURS, "lxc.monitor", "lxc.payload", "lxc.pivot")  # the others are LXC's own names for groups


def started(pid: int) -> str:
    """When the process started, in clock ticks since boot; "" if there is none, or only its zombie.

    Together with the pid it names a process for good.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def end(roots: Callable[[], Iterable[int]]) -> set[Path]:
    """Kill what `roots` gives and all below it until nothing is left; returns control groups they were in.

    Asked again each time, as a killed parent's children may have been forked meanwhile.
    """
    groups: set[Path] = set()
    deadline = time.monotonic() + END_WITHIN
    while found := {pid for pid in _below(set(roots())) if started(pid)}:
        for pid in found:
            groups |= _groups_of(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that do not end: {sorted(found)}")
        time.sleep(PAUSE)
    return groups


def _below(roots: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    for pid in pids():
        with contextlib.suppress(OSError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _groups_of(pid: int) -> set[Path]:
    """The groups of its daemon, in each hierarchy, that the process is in: `lxdpy.ID`, `lxc.payload.c1`."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return {group for line in lines for group in _ours(*line.split(":", 2)[1:])}
    return set()


def _ours(controllers: str, path: str) -> Iterable[Path]:
    parts = path.strip("/").split("/")
    for number, part in enumerate(parts):
        if part.startswith(GROUPS):
            wanted = parts[: number + 1]
            roots = (CGROUPS / controllers.removeprefix("name="), CGROUPS / "unified", CGROUPS)
            yield from [root.joinpath(*wanted) for root in roots if root.joinpath(*wanted).is_dir()][:1]
            return


def groups_of(daemon: str) -> set[Path]:
    """The groups in which the containers of that daemon run, or ran."""
    hierarchies = (CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir()))
    return {group for top in hierarchies if (group := top / f"{OURS}.{daemon}").is_dir()}


def remove_groups(groups: Iterable[Path]) -> None:
    """The given ones and all below them, deepest first, but for those that a process is in."""
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # in use, or gone
                os.rmdir(folder)


def unmount_below(folder: Path) -> None:
    for path in reversed(mounts()):
        if path == folder or path.is_relative_to(folder):
            run("umount", "-l", str(path), check=False)


def mounts() -> list[Path]:
    """Where something is mounted, in the order in which it was."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


def loops() -> dict[str, str]:
    """Backing file of each loop device."""
    found = {}
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found[f"/dev/{file.parent.parent.name}"] = file.read_text().strip()
    return found


def free_loops_below(folder: Path) -> None:
    for device, backing in loops().items():
        if Path(backing).is_relative_to(folder):
            run("losetup", "--detach", device, check=False)


def groups() -> set[Path]:
    """Control groups of ours, and those LXC makes by itself."""
    return {
        Path(folder, name)
        for folder, names, _ in os.walk(CGROUPS)
        for name in names
        if name.startswith(GROUPS)
    }


def found() -> set[str]:
    """All of it on this host, one line each."""
    lines = {f"namespace {path}" for folder in (NETNS, PINS) for path in _entries(folder)}
    lines |= {f"mount {path}" for path in mounts() if OURS in str(path)}
    lines |= {f"loop {device} {backing}" for device, backing in loops().items() if OURS in backing}
    lines |= {f"control group {group}" for group in groups()}
    for pid in pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if b"LXD_DIR=" in environment or b"lxc monitor" in words[0] or b"lxdpyd" in b" ".join(words[:3]):
                lines.add(f"process {pid} {b' '.join(words).decode(errors='replace').strip()}")
    return lines


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if OURS in str(path)] if folder.is_dir() else []


if __name__ == "__main__":
    print("\n".join(sorted(found())))
