"""Namespaces for the members of a cluster on one host, and the switch between them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

NETNS = Path("/run/netns")  # where iproute2 keeps its names
PINS = Path("/run/lxdpy-dev")  # where the mount namespaces are kept
SWITCH = "switch"  # the namespace that joins the others
SWITCH_HOST = 254  # its address's last part; members count from 1
SUBNET = "10.155.0"  # the same for all clusters: none can see another
WAIT = 30  # seconds for any one command below
# In the new mount namespace: a sysfs of the right network namespace, with the host's cgroups put back. The
# cgroups are carried over by a bind mount aside; recursive, for v1's many hierarchies as for v2's one.
FURNISH = """set -e
aside=$(mktemp -d /run/lxdpy-dev.XXXXXX)
trap 'rmdir "$aside"' EXIT
mount --rbind /sys/fs/cgroup "$aside"
mount -t sysfs sysfs /sys
mount --rbind "$aside" /sys/fs/cgroup
umount -l "$aside"
"""


class Failed(Exception):
    """A command did not do what it should; the message has its words and its stderr."""


class Net(msgspec.Struct, frozen=True):
    """The namespaces of one cluster, told from those of others by `tag`."""

    tag: str
    members: tuple[str, ...]

    def namespace(self, name: str) -> str:
        """What iproute2 calls the namespace of a member, or of the switch."""
        return f"lxdpy-{self.tag}-{name}"

    def address(self, name: str) -> str:
        host = SWITCH_HOST if name == SWITCH else self.members.index(name) + 1
        return f"{SUBNET}.{host}"

    def pin(self, name: str) -> Path:
        return PINS / self.tag / name

    def up(self) -> None:
        """Idempotent; needs root."""
        self._add(SWITCH)
        ip = _in(self.namespace(SWITCH))
        if not _there(*ip, "link", "show", "br0"):
            run(*ip, "link", "add", "br0", "type", "bridge")
        run(*ip, "addr", "replace", f"{self.address(SWITCH)}/24", "dev", "br0")
        run(*ip, "link", "set", "br0", "up")
        for name in self.members:
            self._add(name)
            self._plug(name)

    def down(self) -> None:
        """Idempotent. What still runs inside goes on in namespaces without a name: stop it first."""
        for name in (*self.members, SWITCH):
            if _is_mounted(self.pin(name)):
                run("umount", str(self.pin(name)))
            self.pin(name).unlink(missing_ok=True)
            if (NETNS / self.namespace(name)).exists():
                run("ip", "netns", "del", self.namespace(name))
        folder = PINS / self.tag
        while _is_mounted(folder):
            run("umount", str(folder))
        for path in (folder, PINS):
            with contextlib.suppress(OSError):  # not there, or others' namespaces are in it
                path.rmdir()

    def enter(self, name: str, *command: str) -> list[str]:
        """The words that run `command` as on that member. The process is the command's own, by exec."""
        return [
            "nsenter", f"--net={NETNS / self.namespace(name)}", f"--mount={self.pin(name)}", "--", *command
        ]  # fmt: skip

    def cut(self, name: str) -> None:
        """Take the member off the switch: what it sends is lost, as if a cable were pulled."""
        run(*_in(self.namespace(SWITCH)), "link", "set", name, "down")

    def mend(self, name: str) -> None:
        run(*_in(self.namespace(SWITCH)), "link", "set", name, "up")

    def processes(self, name: str) -> Iterator[int]:
        """Pids of what lives in the member's mount namespace: daemon, monitors, dnsmasq; not containers."""
        try:
            wanted = self.pin(name).stat()
        except FileNotFoundError:
            return
        for pid in pids():
            try:
                found = Path(f"/proc/{pid}/ns/mnt").stat()
            except OSError:
                continue  # it ended meanwhile
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                yield pid

    def _add(self, name: str) -> None:
        if not (NETNS / self.namespace(name)).exists():
            run("ip", "netns", "add", self.namespace(name))
        run(*_in(self.namespace(name)), "link", "set", "lo", "up")
        self._pin(name)

    def _pin(self, name: str) -> None:
        folder, pin = PINS / self.tag, self.pin(name)
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_mounted(folder):  # a mount namespace can be kept on a private mount only
            run("mount", "--bind", str(folder), str(folder))
            run("mount", "--make-private", str(folder))
        if _is_mounted(pin):
            return
        pin.touch()
        net = f"--net={NETNS / self.namespace(name)}"
        run("nsenter", net, "unshare", f"--mount={pin}", "--propagation", "slave", "sh", "-c", FURNISH)

    def _plug(self, name: str) -> None:
        ip, switch = _in(self.namespace(name)), self.namespace(SWITCH)
        if not _there(*ip, "link", "show", "eth0"):
            peer = ("peer", "name", "eth0", "netns", self.namespace(name))
            run(*_in(switch), "link", "add", name, "type", "veth", *peer)
        run(*_in(switch), "link", "set", name, "master", "br0", "up")
        run(*ip, "addr", "replace", f"{self.address(name)}/24", "dev", "eth0")
        run(*ip, "link", "set", "eth0", "up")


def run(
    *words: str,
    check: bool = True,
    timeout: float = WAIT,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """The command's stdout. Raises Failed, unless `check` is off."""
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout, check=False, env=environment,
        input=stdin,
    )  # fmt: skip
    if check and done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def tags() -> list[str]:
    """Clusters whose namespaces are on this host."""
    return sorted(entry.name for entry in PINS.iterdir()) if PINS.is_dir() else []


def _in(namespace: str) -> Sequence[str]:
    return ("ip", "-n", namespace)


def _there(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, timeout=WAIT, check=False).returncode == 0


def _is_mounted(path: Path) -> bool:
    """Whether something is mounted at exactly `path`; a pinned namespace is a mount on a file."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in lines)
