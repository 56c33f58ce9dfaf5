"""Daemons in the namespaces of one host: start, kill, look at, and take away with all they made."""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lxdpy.dev import leftovers
from lxdpy.dev.api import Refused, applied, ask
from lxdpy.dev.netns import SWITCH, Net, run
from lxdpy.host.paths import tag_of

PORT = 8443
READY_WITHIN = 30.0  # seconds; a start takes under 1 on an idle machine, tests run on busy ones
STOP_WITHIN = 60.0  # seconds from SIGTERM to the end, containers left running
PAUSE = 0.02  # seconds between looks
# Containers of all members have the same subnet, each member a bridge of its own; nothing leads out.
BRIDGE = {
    "name": "lxdbr0",
    "type": "bridge",
    "config": {"ipv4.address": "10.156.0.1/24", "ipv4.nat": "false", "ipv6.address": "none"},
}
DAEMON = Path(sys.executable).parent / "lxdpyd"


class NotReady(Exception):
    """A daemon ended, or did not answer in time; the message has the end of its log."""


class Turns:
    """Who of a cluster was asked last: who is asked next answers with all that it knew.

    A member answers from what it has applied, which may be milliseconds older than what another has told.
    Clients that mind pass on the index of the answer before; this does it for those that cannot.
    """

    def __init__(self) -> None:
        self._last: Member | None = None

    def take(self, member: "Member") -> None:
        """`member` is asked next. One that is cut off answers with what it has, after 5 s."""
        last, self._last = self._last, member
        if last is None or last is member:
            return
        with contextlib.suppress(OSError, Refused, ValueError):  # one of them does not answer
            (cluster, index), (own, has) = applied(last.socket), applied(member.socket)
            if cluster == own and has < index:
                applied(member.socket, index)


class Member:
    """One daemon, its files below `folder`. Its process may have been started by another program."""

    def __init__(self, net: Net, name: str, state: Path) -> None:
        self.net = net
        self.turns: Turns | None = None  # shared by those that are asked in turns
        self.name = name
        self.folder = state / name  # $LXD_DIR
        self.gpus = state / f"{name}.gpus.yaml"  # what --fake-gpus reads
        self.log = state / f"{name}.log"  # stdout and stderr; the daemon's own log is beside it
        self._pid_file = state / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "unix.socket"

    @property
    def address(self) -> str:
        return f"{self.net.address(self.name)}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """What any program that talks to this member, or is it, runs with; nothing is inherited."""
        return {
            "PATH": f"{DAEMON.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": "/root",
            "LXD_DIR": str(self.folder),
        }

    def start(self, *options: str, wait: bool = True, **environment: str) -> None:
        """Start the daemon, unless it runs. Raises NotReady."""
        if self.pid() is None:
            self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            words = self.net.enter(
                self.name, str(DAEMON), "--logfile", str(self.log.with_suffix(".daemon.log")),
                "--group", "root", "--fake-gpus", str(self.gpus), *options,
            )  # fmt: skip
            if self._child:
                self._child.wait()  # one that crashed by itself
            with self.log.open("ab") as output:
                self._child = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    env=self.environment | environment, start_new_session=True,
                )  # fmt: skip
            self._pid_file.write_text(f"{self._child.pid} {leftovers.started(self._child.pid)}")
        if wait:
            self.wait_ready()

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.pid() is None:
                raise NotReady(f"{self.name} ended at its start:\n{self.tail()}")
            with contextlib.suppress(OSError, Refused, ValueError):
                ask(self.socket, "GET", "/internal/ready", timeout=5)
                return
            time.sleep(PAUSE)
        raise NotReady(f"{self.name} did not answer within {within:g} s:\n{self.tail()}")

    def pid(self) -> int | None:
        """Of the running daemon. A pid that was given to another process meanwhile is not taken for it."""
        if self._child:
            self._child.poll()  # a child that ended is reaped, so that it is seen to be gone
        with contextlib.suppress(OSError, ValueError):
            pid, started = self._pid_file.read_text().split()
            if leftovers.started(int(pid)) == started:
                return int(pid)
        return None

    def kill(self) -> None:
        """As a crash: no goodbye. Containers stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator does it. Containers stay."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """It lives, but neither hears nor answers."""
        os.kill(self._running(), signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._running(), signal.SIGCONT)

    def take_turn(self) -> None:
        """It is asked next; by way of anything but `ask` and `lxdpy` the caller has to say so."""
        if self.turns is not None:
            self.turns.take(self)

    def ask(self, method: str, url: str, body: object = None, *, timeout: float = 60) -> Any:
        self.take_turn()
        return ask(self.socket, method, url, body, timeout=timeout)

    def furnish(self) -> None:
        """A pool and a network, and a default profile that uses them. Idempotent.

        On the first member, before it is a cluster's: who joins takes them over.
        """
        if not self.ask("GET", "/1.0/storage-pools"):
            self.ask("POST", "/1.0/storage-pools", {"name": "default", "driver": "dir"})
        if BRIDGE["name"] not in {row["name"] for row in self.ask("GET", "/1.0/networks?recursion=1")}:
            self.ask("POST", "/1.0/networks", BRIDGE)
        devices = {
            "root": {"type": "disk", "path": "/", "pool": "default"},
            "eth0": {"type": "nic", "network": BRIDGE["name"], "name": "eth0"},
        }
        self.ask("PATCH", "/1.0/profiles/default", {"devices": devices})

    def join(self, token: str) -> None:
        """Raises Refused with the reason."""
        body = {"server_name": self.name, "enabled": True, "cluster_token": token}
        self.ask("PUT", "/1.0/cluster", body | {"server_address": self.address})

    def token(self, name: str) -> str:
        """A token for a member of that name to join by, in the form that `lxc cluster add` prints."""
        made = self.ask("POST", "/1.0/cluster/members", {"server_name": name})
        words = {"serverName": "server_name", "expiresAt": "expires_at"}
        token = {words.get(key, key): value for key, value in made.items()}
        return base64.b64encode(json.dumps(token).encode()).decode()

    def lxdpy(self, *words: str, timeout: float = 120, stdin: str = "") -> str:
        """Our own command line, run on the member. Raises Failed."""
        self.take_turn()
        command = self.net.enter(self.name, str(DAEMON.parent / "lxdpy"), *words)
        return run(*command, timeout=timeout, environment=self.environment, stdin=stdin)

    def tail(self, lines: int = 30) -> str:
        files = (path for path in (self.log, self.log.with_suffix(".daemon.log")) if path.exists())
        return "\n".join(
            line for path in files for line in path.read_text(errors="replace").splitlines()[-lines:]
        )

    def reap(self) -> set[Path]:
        """Forget a process that has ended; returns the control groups that its containers were in."""
        if self._child:
            self._child.wait()
            self._child = None
        return leftovers.groups_of(tag_of(self.folder))

    def _running(self) -> int:
        pid = self.pid()
        if pid is None:
            raise NotReady(f"{self.name} does not run")
        return pid

    def _end(self, how: signal.Signals) -> None:
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(handle, how)
                if not select.select([handle], [], [], STOP_WITHIN)[0]:
                    raise NotReady(f"{self.name} did not end within {STOP_WITHIN:g} s:\n{self.tail()}")
            finally:
                os.close(handle)
        self.reap()


class Cluster:
    """Members `n1` … on one host, with all their files below `state`, which need not exist."""

    def __init__(self, tag: str, state: Path, members: int = 3) -> None:
        self.state = state
        self.net = Net(tag, tuple(f"n{number}" for number in range(1, members + 1)))
        self.members = [Member(self.net, name, state) for name in self.net.members]

    @classmethod
    def found(cls, state: Path) -> "Cluster":
        """The one that `up` left there. Raises FileNotFoundError."""
        written = json.loads((state / "cluster.json").read_text())
        return cls(written["tag"], state, written["members"])

    def in_turns(self) -> None:
        """From now on whoever is asked knows at least what the one that was asked before it did."""
        turns = Turns()
        for member in self.members:
            member.turns = turns

    def up(self, gpus: int | str = 0, **environment: str) -> None:
        """Start all daemons, not joined, each with so many fake GPUs, or a profile's. Idempotent."""
        self.state.mkdir(mode=0o711, parents=True, exist_ok=True)
        written = {"tag": self.net.tag, "members": len(self.members)}
        (self.state / "cluster.json").write_text(json.dumps(written))
        self.net.up()
        for member in self.members:
            if not member.gpus.exists():
                entry = f"vendor: nvidia, count: {gpus}" if isinstance(gpus, int) else f"profile: {gpus}"
                member.gpus.write_text(f"gpus:\n- {{{entry}}}\n")
            member.start(wait=False, **environment)
        for member in self.members:
            member.wait_ready()

    def join(self) -> None:
        """Furnish the first member, make it a cluster, and let the others join it by token. Idempotent."""
        first, *others = self.members
        first.furnish()
        if not first.ask("GET", "/1.0/cluster")["enabled"]:
            body = {"server_name": first.name, "enabled": True, "server_address": first.address}
            first.ask("PUT", "/1.0/cluster", body)
        for member in others:
            if not member.ask("GET", "/1.0/cluster")["enabled"]:
                member.join(first.token(member.name))

    def down(self) -> None:
        """Take all away: daemons, containers, namespaces, mounts, loop devices, control groups, files."""
        names = (*self.net.members, SWITCH)
        groups = leftovers.end(lambda: [pid for name in names for pid in self.net.processes(name)])
        for member in self.members:
            groups |= member.reap()
        self.net.down()
        leftovers.unmount_below(self.state)
        leftovers.free_loops_below(self.state)
        leftovers.remove_groups(groups)
        shutil.rmtree(self.state, ignore_errors=True)
