"""Where things lie on this host: the kernel's own trees, and the daemon's files below `$LXD_DIR`.

Below `$LXD_DIR` the layout is LXD's, so that its operators find logs where they look for them:

    logs/NAME/          lxc.conf, lxc.log, console.log: kept when the container stops, shown by the API
    devices/NAME/       device nodes and host sides of what is mounted into the container
    run/NAME/           monitor.pid, seccomp: there while the container runs
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostRoot:
    """The trees in which the kernel shows hardware. Never a literal /sys: tests bring trees of their own."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    top: Path = Path("/")  # all else

    def at(self, path: str) -> Path:
        """Where an absolute path of that host is."""
        first, _, rest = path.lstrip("/").partition("/")
        tree = {"sys": self.sys, "proc": self.proc, "dev": self.dev}.get(first)
        return tree / rest if tree else self.top / path.lstrip("/")


def under(folder: Path) -> HostRoot:
    """The trees below a folder."""
    return HostRoot(sys=folder / "sys", proc=folder / "proc", dev=folder / "dev", top=folder)


def lxd_dir() -> Path:
    """`$LXD_DIR`, by default /var/lib/lxdpy; absolute, as LXC demands it."""
    return Path(os.path.abspath(os.environ.get("LXD_DIR", "/var/lib/lxdpy")))


def tag_of(lxd_dir: Path) -> str:
    """What tells a daemon's control groups from those of others on the host.

    Of its folder, not of its member id: a member that joins a cluster gets another id, its containers stay.
    """
    return hashlib.sha256(os.fsencode(lxd_dir)).hexdigest()[:12]


def container_name(project: str, name: str) -> str:
    """The name of an instance outside its project, as in LXD: on disk, in LXC and in control groups."""
    return name if project == "default" else f"{project}_{name}"


@dataclass(frozen=True)
class InstancePaths:
    """Files of one instance below `$LXD_DIR`; `name` is that of `container_name()`."""

    lxd_dir: Path
    name: str

    @property
    def logs(self) -> Path:
        return self.lxd_dir / "logs" / self.name

    @property
    def config(self) -> Path:
        return self.logs / "lxc.conf"

    @property
    def log(self) -> Path:
        return self.logs / "lxc.log"

    @property
    def console(self) -> Path:
        return self.logs / "console.log"

    @property
    def devices(self) -> Path:
        return self.lxd_dir / "devices" / self.name

    @property
    def run(self) -> Path:
        return self.lxd_dir / "run" / self.name

    @property
    def pid_file(self) -> Path:
        return self.run / "monitor.pid"

    @property
    def seccomp(self) -> Path:
        return self.run / "seccomp"

    @property
    def native(self) -> Path:
        """There when only calls of the host's own architecture are allowed."""
        return self.run / "native"

    @property
    def calls(self) -> Path:
        """The socket that system calls are passed on to. Short, however long the instance's name is."""
        return self.lxd_dir / "run" / ".calls" / hashlib.sha256(self.name.encode()).hexdigest()[:12]

    @property
    def quiet_seccomp(self) -> Path:
        """Where the other passes calls on: the same without that."""
        return self.run / "seccomp.quiet"
