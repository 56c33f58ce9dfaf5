"""Control groups of containers, as files: v1, v2, or both side by side.

Each container has two groups in every hierarchy: `PREFIX/monitor/NAME` for LXC's monitor, and
`PREFIX/payload/NAME`, which carries the limits, with the container's processes below it in `ns`. LXC makes
them; here they are read, changed while the container runs, and removed. Everything in this module is quick
(0.01 to 0.2 ms a file), but `remove` may wait for the kernel: call it in a thread.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.errors import Conflict, Error, Unsupported
from lxdpy.host.lxc.limits import CgroupLayout, Item
from lxdpy.host.paths import HostRoot
from lxdpy.host.throttle import Throttle, files_of, lines, strictest

REMOVE_WITHIN = 5.0  # seconds; processes that were just killed leave their group within some milliseconds
REMOVE_PAUSE = 0.005  # seconds between two tries
PAGE = 4096  # bytes: more than any file has that is read at once


class CgroupFailed(Error):
    """The kernel refused a value: facts name the file and the value."""


@dataclass(frozen=True)
class Usage:
    """What a container uses now: nanoseconds, bytes, counts; 0 where the host does not count it."""

    cpu: int = 0
    memory: int = 0
    memory_peak: int = 0
    swap: int = 0
    swap_peak: int = 0
    processes: int = 0


class Cgroups:
    """The control groups of one daemon's containers, below the group `prefix` in each hierarchy.

    Daemons of one host have a prefix each, one level deep: in a shared group above, one that stops and tidies
    would race with another that starts its first container.
    """

    def __init__(self, prefix: str, host: HostRoot | None = None) -> None:
        self.prefix = prefix
        legacy, unified = _hierarchies((host or HostRoot()).proc)
        self._legacy = legacy
        self._unified = unified
        controllers = (unified / "cgroup.controllers").read_text().split() if unified else []
        memory = legacy.get("memory")
        self.layout = CgroupLayout(
            legacy=frozenset(legacy),
            unified=frozenset({*controllers, "freezer", "devices"} if unified else ()) - frozenset(legacy),
            memory_swap=(memory / "memory.memsw.limit_in_bytes").exists()
            if memory
            else "memory" in controllers,
            disk_weight=_disk_weight(legacy.get("blkio"), unified),
            hugepages=_hugepages((host or HostRoot()).sys),
        )

    def payload(self, controller: str, name: str) -> Path:
        """The group with the container's limits in the hierarchy that has `controller`."""
        if self.layout.version(controller) == 1:
            return self._legacy[controller] / self.prefix / "payload" / name
        assert self._unified is not None
        return self._unified / self.prefix / "payload" / name

    def delegate(self) -> None:
        """Have the controllers of v2 beside v1 in groups to come: LXC does so only where v2 is alone."""
        wanted = self.layout.unified - {"freezer", "devices"}
        if not (wanted and self._legacy and self._unified):
            return
        top = self._unified / self.prefix
        with contextlib.suppress(FileNotFoundError):
            if wanted <= {*_read(top / "payload" / "cgroup.subtree_control").split()}:
                return  # no group has what those above it do not
        for folder in (self._unified, top, top / "payload"):
            folder.mkdir(exist_ok=True)
            have = _read(folder / "cgroup.subtree_control").split()
            for controller in sorted(wanted.difference(have)):
                _write(folder / "cgroup.subtree_control", f"+{controller}")

    def write(self, name: str, found: Iterable[Item]) -> None:
        """Set values of a running container. Raises CgroupFailed on what the kernel refuses.

        Tried twice: which of memory and memory with swap must be set first depends on where they stand.
        """
        failed: list[tuple[Item, OSError]] = []
        for item in found:
            try:
                self._write(name, item)
            except OSError as error:
                failed.append((item, error))
        for item, _ in failed:
            try:
                self._write(name, item)
            except OSError as error:
                if error.errno == errno.ENOENT and not self.payload(item.controller, name).exists():
                    raise Conflict("The instance is not running") from None
                raise CgroupFailed(
                    f"The kernel refused {item.file} = {item.value}: {error.strerror}",
                    file=item.file, value=item.value,
                ) from None  # fmt: skip

    def _write(self, name: str, item: Item) -> None:
        group = self.payload(item.controller, name)
        if item.controller != "cpuset" or self.layout.version("cpuset") == 2:
            _write(group / item.file, item.value)
            return
        # v1: groups within keep sets of their own, always parts of the outer one. So all are widened from the
        # outside by what they get, then cut to it from the inside: the old and the new may lie apart.
        groups = sorted(path.parent for path in group.glob(f"**/{item.file}"))
        for folder in groups or [group]:
            old = _read(folder / item.file).strip()
            _write(folder / item.file, f"{old},{item.value}" if old else item.value)
        for folder in reversed(groups):
            _write(folder / item.file, item.value)

    def throttle(self, name: str, throttles: Iterable[Throttle]) -> None:
        """Have the container's disks limited like that, and no others. Raises CgroupFailed, Unsupported."""
        wanted = strictest(throttles)
        controller = "blkio" if "blkio" in self.layout.legacy else "io"
        version = self.layout.version(controller)
        group = self.payload(controller, name)
        present = {file: _read(group / file) for file in files_of(version)}
        for file, line in lines(version, present, wanted):
            try:
                _write(group / file, line)
            except OSError as error:
                raise CgroupFailed(
                    f"The kernel refused {file} = {line}: {error.strerror}", file=file, value=line
                ) from None

    def allow_device(self, name: str, rule: str) -> None:
        """Raises Unsupported on v2, where only LXC's monitor can replace the program that decides."""
        self._device(name, "devices.allow", rule)

    def deny_device(self, name: str, rule: str) -> None:
        """As `allow_device`. What is open stays open."""
        self._device(name, "devices.deny", rule)

    def _device(self, name: str, file: str, rule: str) -> None:
        if self.layout.version("devices") == 2:
            raise Unsupported("Device rules of control groups v2 are set through LXC")
        group = self.payload("devices", name)
        targets = [group / "ns", group] if file == "devices.deny" else [group, group / "ns"]
        for target in targets:
            # A parent denies for its children; a child may allow only what the parent has.
            if target.exists():
                _write(target / file, rule)

    def set_frozen(self, name: str, frozen: bool) -> None:
        """Ask for it; `is_frozen` tells when it is so."""
        if self.layout.version("freezer") == 1:
            _write(self.payload("freezer", name) / "freezer.state", "FROZEN" if frozen else "THAWED")
        else:
            _write(self.payload("freezer", name) / "cgroup.freeze", "1" if frozen else "0")

    def is_frozen(self, name: str) -> bool:
        """Asked so often that paths as objects would be most of its time."""
        try:
            if "freezer" in self._legacy:
                state = f"{self._legacy['freezer']}/{self.prefix}/payload/{name}/freezer.state"
                return _read(state).strip() == "FROZEN"
            return "frozen 1" in _read(f"{self._unified}/{self.prefix}/payload/{name}/cgroup.events")
        except FileNotFoundError:
            return False

    def usage(self, name: str) -> Usage:
        """All zero for a container that does not run."""
        present = self.layout.legacy | self.layout.unified
        memory = swap = memory_peak = swap_peak = 0
        if "memory" in self.layout.legacy:
            group = self.payload("memory", name)
            memory = _number(group / "memory.usage_in_bytes")
            memory_peak = _number(group / "memory.max_usage_in_bytes")
            if self.layout.memory_swap:
                swap = max(0, _number(group / "memory.memsw.usage_in_bytes") - memory)
                swap_peak = max(0, _number(group / "memory.memsw.max_usage_in_bytes") - memory_peak)
        elif "memory" in present:
            group = self.payload("memory", name)
            memory, memory_peak = _number(group / "memory.current"), _number(group / "memory.peak")
            swap, swap_peak = _number(group / "memory.swap.current"), _number(group / "memory.swap.peak")
        return Usage(
            cpu=self._cpu(name), memory=memory, memory_peak=memory_peak, swap=swap, swap_peak=swap_peak,
            processes=_number(self.payload("pids", name) / "pids.current") if "pids" in present else 0,
        )  # fmt: skip

    def counting(self, name: str) -> dict[str, str]:
        """The groups that count what it uses of its limits, by controller: those that the host has.

        `unified`: of version 2, the one whose processes are the container's own.
        """
        present = self.layout.legacy | self.layout.unified
        found = {one: str(self.payload(one, name)) for one in sorted({"memory", "pids"} & present)}
        own = {"unified": f"{self._unified}/{self.prefix}/payload/{name}/ns"} if self._unified else {}
        return found | own

    def process_limit(self, name: str) -> int:
        """How many processes it may have; 0 for any number."""
        there = "pids" in self.layout.legacy | self.layout.unified
        return _number(self.payload("pids", name) / "pids.max") if there else 0

    def _cpu(self, name: str) -> int:
        if "cpuacct" in self.layout.legacy:
            return _number(self.payload("cpuacct", name) / "cpuacct.usage")
        if self._unified is None:
            return 0
        with contextlib.suppress(OSError, ValueError):
            stat = _read(self._unified / self.prefix / "payload" / name / "cpu.stat")
            return int(stat.split("usage_usec", 1)[1].split()[0]) * 1000
        return 0

    def all_cpus(self) -> str:
        """The set of CPUs that containers may be given."""
        legacy = self._legacy.get("cpuset")
        file = legacy / "cpuset.cpus" if legacy else Path("/sys/devices/system/cpu/online")
        return file.read_text().strip()

    def processes(self, name: str, kind: Literal["payload", "monitor"] = "payload") -> list[int]:
        """Process ids on the host of all in the container's groups; nothing of a group that is not there."""
        found: set[int] = set()
        for root in self._roots():
            for folder, _, _ in os.walk(root / self.prefix / kind / name):
                with contextlib.suppress(OSError):
                    found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
        return sorted(found)

    def kill(self, name: str) -> None:
        """Kill the monitor and all processes of a container, however far it got."""
        with contextlib.suppress(OSError):
            self.set_frozen(name, False)
        for pid in (*self.processes(name, "monitor"), *self.processes(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self, name: str) -> None:
        """Remove both groups everywhere; nothing to do is fine. Blocks for up to `REMOVE_WITHIN`.

        A group left behind by a crash makes the next start fail. Raises Conflict if processes live in it.
        """
        deadline = time.monotonic() + REMOVE_WITHIN
        while left := [path for path in self._groups(name) if not _rmtree(path)]:
            if time.monotonic() > deadline:
                raise Conflict(f"Processes of {name} are left in control group {left[0]}", group=str(left[0]))
            time.sleep(REMOVE_PAUSE)

    def tidy(self) -> None:
        """Remove the daemon's own groups, if no container is left in them."""
        for root in self._roots():
            top = root / self.prefix
            _rmtree(top / "pivot")
            # One by one: what lies deeper in payload is the containers' own, though it may be empty.
            for folder in (top / "monitor", top / "payload", top):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _groups(self, name: str) -> Iterator[Path]:
        for root in self._roots():
            for kind in ("payload", "monitor"):
                # Asked at every start and stop: a path as an object would take longer than the look.
                path = f"{root}/{self.prefix}/{kind}/{name}"
                if os.path.lexists(path):
                    yield Path(path)

    def _roots(self) -> set[Path]:
        return {*self._legacy.values(), *([self._unified] if self._unified else [])}


def _hierarchies(proc: Path) -> tuple[dict[str, Path], Path | None]:
    """Folder of each v1 controller, and of v2: where LXC makes its groups, beside those of process 1."""
    bases: dict[str, str] = {}
    for line in (proc / "1/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        # systemd sits in a scope of its own below the root it manages.
        base = path.removesuffix("/init.scope").strip("/")
        bases |= dict.fromkeys(controllers.split(","), base)
    legacy: dict[str, Path] = {}
    unified: Path | None = None
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mounted = Path(before.split()[4])
        if kind == "cgroup2":
            unified = mounted / bases.get("", "")
        elif kind == "cgroup":
            legacy |= {name: mounted / bases[name] for name in options.split(",") if name in bases}
    return legacy, unified


def _disk_weight(blkio: Path | None, unified: Path | None) -> str:
    """Name of the file; no group at the top has one, so its neighbours or other groups' files tell."""
    if blkio:
        if (blkio / "blkio.bfq.io_service_bytes").exists():
            return "blkio.bfq.weight"
        return "blkio.weight" if (blkio / "blkio.leaf_weight").exists() else ""
    names = ("io.weight", "io.bfq.weight") if unified else ()
    return next((name for name in names if unified and any(unified.glob(f"*/{name}"))), "")


def _hugepages(sys: Path) -> frozenset[str]:
    """Sizes as control groups have them: hugepages-2048kB is 2MB."""
    found = set()
    for folder in (sys / "kernel/mm/hugepages").glob("hugepages-*kB"):
        size = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
        unit = next(index for index in (2, 1, 0) if size >= 1024**index)
        found.add(f"{size // 1024**unit}{('KB', 'MB', 'GB')[unit]}")
    return frozenset(found)


def _rmtree(path: Path) -> bool:
    """Remove a group and those below it, deepest first; False if one is in use."""
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _write(path: Path, value: str) -> None:
    # Not write_text(): it would create the file in a plain folder, and O_TRUNC means nothing here.
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    except OSError as failure:
        raise _refused(failure, path) from None
    finally:
        os.close(handle)


def _read(path: str | Path) -> str:
    # Not read_text(): lists read seven such files an instance, and it takes twice the time.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, PAGE).decode()
    except OSError as failure:
        raise _refused(failure, path) from None
    finally:
        os.close(handle)


def _refused(failure: OSError, path: str | Path) -> OSError:
    """A group may go between the opening of its file and the rest: it is as if it had not been there."""
    gone = failure.errno == errno.ENODEV
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) if gone else failure


def _number(path: Path) -> int:
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return 0
