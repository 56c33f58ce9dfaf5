"""The daemons that are measured: ours and LXD's, each in namespaces of its own, without a way out."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lxdpy.dev import leftovers
from lxdpy.dev.api import Refused, ask
from lxdpy.dev.members import DAEMON, PORT, NotReady
from lxdpy.dev.netns import Net
from lxdpy.host.paths import tag_of

READY_WITHIN = 90.0  # seconds; LXD needs 2 with a thousand instances on an idle machine
STOP_WITHIN = 60.0  # seconds
PAUSE = 0.004  # seconds between looks: what a start's figure may be too long by
MEBIBYTE = 1 << 20
PIVOT = "lxc.pivot"  # the control group
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Kind(msgspec.Struct, frozen=True):
    """A program that speaks LXD's API."""

    name: str
    program: str
    token_is_password: bool = False  # it joins by address, certificate and the token as a password

    def words(self, log: Path) -> Sequence[str]:
        return (self.program, "--logfile", str(log), "--group", "root")


LXDPY = Kind("lxdpy", str(DAEMON))
LXD = Kind("lxd", "lxd", token_is_password=True)


class Daemon:
    """One daemon on one member of `net`; its files are below `state`."""

    def __init__(self, kind: Kind, net: Net, name: str, state: Path) -> None:
        self.kind = kind
        self.net = net
        self.name = name
        self.folder = state / name
        self.log = state / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "unix.socket"

    @property
    def address(self) -> str:
        return f"{self.net.address(self.name)}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """What the daemon runs with, and any program that talks to it; nothing is inherited."""
        return {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "LXD_DIR": str(self.folder)}

    @property
    def pid(self) -> int:
        """Raises NotReady if it does not run."""
        if self._child is None or self._child.poll() is not None:
            raise NotReady(f"{self.kind.name} {self.name} does not run:\n{self.tail()}")
        return self._child.pid

    def start(self) -> float:
        """Seconds until it says that it is ready."""
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        words = self.net.enter(self.name, *self.kind.words(self.log.with_suffix(".daemon.log")))
        begin = time.perf_counter()
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment,
                start_new_session=True,
            )  # fmt: skip
        while time.perf_counter() - begin < READY_WITHIN:
            assert self.pid
            with contextlib.suppress(OSError, Refused, ValueError):
                ask(self.socket, "GET", "/internal/ready", timeout=READY_WITHIN)
                return time.perf_counter() - begin
            time.sleep(PAUSE)
        raise NotReady(f"{self.kind.name} {self.name} is not ready:\n{self.tail()}")

    def stop(self) -> None:
        """As an operator does it; containers stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def tail(self) -> str:
        files = (path for path in (self.log, self.log.with_suffix(".daemon.log")) if path.exists())
        return "\n".join("\n".join(path.read_text(errors="replace").splitlines()[-15:]) for path in files)

    def memory(self) -> tuple[float, float]:
        """MiB resident: the daemon's, and that of all its children together."""
        return resident(self.pid), sum(map(resident, children(self.pid)))

    def cpu(self) -> float:
        """Seconds of processor time: its own, its children's, and those of children that ended."""
        return sum(consumed(pid) for pid in (self.pid, *children(self.pid)))

    def _end(self, how: signal.Signals) -> None:
        handle = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(handle, how)
            if not select.select([handle], [], [], STOP_WITHIN)[0]:
                raise NotReady(f"{self.kind.name} {self.name} does not end:\n{self.tail()}")
        finally:
            os.close(handle)
        if self._child:
            self._child.wait()
            self._child = None


def children(pid: int) -> list[int]:
    """Direct ones. Those that double as another's monitor have gone to init by then."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    return []


def resident(pid: int) -> float:
    """MiB; 0 if it has ended."""
    for line in _lines(Path(f"/proc/{pid}/status")):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / MEBIBYTE
    return 0.0


def consumed(pid: int) -> float:
    """Seconds of user and system time of a process and of those of its children that were waited for."""
    for line in _lines(Path(f"/proc/{pid}/stat")):
        fields = line.rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _lines(path: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from path.read_text().splitlines()


def end_all(net: Net, state: Path, prefix: str) -> None:
    """Kill what lives in the namespaces; take away mounts, loop devices, control groups, namespaces.

    `prefix` is what the instances' names begin with: LXC names its control groups for them. The group in
    which it leaves the monitors of all as they end is removed unless somebody is in it; it makes it anew.
    """
    groups = leftovers.end(lambda: [pid for name in net.members for pid in net.processes(name)])
    for name in net.members:
        groups |= leftovers.groups_of(tag_of(state / name))
    marks = tuple(f"lxc.{part}.{prefix}" for part in ("payload", "monitor"))
    groups |= {path for path in leftovers.groups() if path.name.startswith(marks) or path.name == PIVOT}
    net.down()
    leftovers.unmount_below(state)
    leftovers.free_loops_below(state)
    leftovers.remove_groups(sorted(groups, reverse=True))
