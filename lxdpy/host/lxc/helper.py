"""The child process that calls liblxc, enters containers and mounts; started by `lxdpy.host.lxc.client`.

Binding: python3-lxc, the project's own and Debian's package, for every call; nothing else imports it. That it
holds the GIL and leaks descriptors does not matter here: each request is served by a forked child that ends
with its answer. Those children have no Python signal handlers (a handled signal during attach makes liblxc
end its caller) and no descriptors to pass on by accident.

Forks are what a request costs, and their price is this process's memory: an attach takes three, each of them
0.5 ms at 5 MB and 1.2 ms at 8. So it runs without `site`, imports little, and of the binding the part in C,
as what is around that brings `subprocess` along.

A child that mounted something is as it was before, so a few of them are kept and asked again. One that fails
ends, as nobody knows how far it got.

The process has one thread and stays so: `setns` asks for it. It leads its own session and ignores ^C; it
ends when the daemon's end of the socket is closed, and what it attached lives on. As a child subreaper it
becomes the parent of attached processes, so their exit statuses come here.

Messages: {"id", "op", …} asks; {"id", "result"} or {"id", "error", "errno"} answers, an attach with the
pidfd of its process; {"id", "exit"} follows when that has ended. {"op": "cancel", "id"} takes back a request.
So it is with a process that `files` leaves behind.
"""

import contextlib
import ctypes
import errno
import gc
import json
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import _lxc as lxc

from lxdpy.host import mounts
from lxdpy.host.intercept.joining import Joining, hide
from lxdpy.host.lxc import native, pty, uevent, wire
from lxdpy.host.lxc.interfaces import networks
from lxdpy.host.lxc.rendering import render
from lxdpy.host.sftp import server

PR_SET_CHILD_SUBREAPER = 36
CLOSE_RANGE_CLOEXEC = 4
HANDLED = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
NOT_STARTED = 126  # status of a program that was found and cannot be run
RESULT = 1 << 16  # bytes of a child's answer at most: its socket holds as much, so it never waits for us
ASK = 1 << 16  # bytes of what a child is asked
KEPT = 2  # children that wait to be asked again

_libc = ctypes.CDLL(None, use_errno=True)


def _container(ask: wire.Message) -> Any:
    container = lxc.Container(ask["name"], ask["path"])
    if not container.load_config(ask["config"]):
        raise OSError(f"LXC cannot read {ask['config']}")
    return container


def attach(ask: wire.Message, fds: list[int]) -> dict[str, int]:
    """Start a program in a container; its descriptors 0, 1, 2 are `fds`, or all a terminal made for it, whose
    master goes out through the socket `fds[0]`.
    """
    uid, gid, groups, argv = ask["uid"], ask["gid"], ask["groups"], ask["argv"]

    joining = _joining(ask)
    if ask.get("native"):
        native.restrict()

    def become(_: object) -> int:
        # Runs inside: nothing may be imported here. As root of the container, so that groups can be set.
        if joining:
            joining.join()
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError:
            os.write(2, f"The instance has no user {uid} or no group {gid}\n".encode())
            return NOT_STARTED
        # It returns only if there is nothing to run: 126, 127.
        status: int = lxc.attach_run_command((argv[0], argv))
        return status

    if terminal := ask.get("terminal"):
        master, slave = pty.open_pty(terminal["init"], uid, gid)
        if all(terminal["size"]):
            pty.resize(master, *terminal["size"])
        _give(fds[0], master)
        fds = [slave] * 3
    container = _container(ask)
    container.set_config_item("lxc.log.level", "error")  # else each attach logs that there is no AppArmor
    pid = container.attach(
        become, None, stdin=fds[0], stdout=fds[1], stderr=fds[2], uid=0, gid=0, initial_cwd=ask["cwd"],
        env_policy=lxc.LXC_ATTACH_CLEAR_ENV, extra_env_vars=ask["environment"],
    )  # fmt: skip
    if pid < 0:
        raise OSError("LXC could not enter the container")
    return {"pid": pid}


def _joining(ask: wire.Message) -> Joining | None:
    """What has the program's system calls passed on, where those of the container are."""
    if not (passed := ask.get("passed")):
        return None
    found = None
    with contextlib.suppress(OSError):  # nobody is there: the kernel makes them
        found = Joining(passed["policy"], passed["to"], passed["init"])
    hide(passed["policy"], passed["quiet"])
    return found


def console(ask: wire.Message, fds: list[int]) -> None:
    """A container's console, what holds it, and its inner end; out through the socket `fds[0]`.

    LXC's monitor copies the console to a terminal of its own making, for one client at a time, for as long as
    that keeps a socket open. The binding does not tell which: it is the one that was not there before.
    """
    container = _container(ask)
    before = pty.sockets()
    try:
        terminal = container.console_getfd(0)
    except ValueError as refused:
        raise OSError(errno.EBUSY, str(refused)) from None
    pty.leave_as_is(terminal)
    found = [terminal, *(pty.sockets() - before)]
    with contextlib.suppress(OSError):
        found.append(pty.open_console(ask["init"]))
    _give(fds[0], *found)


def _give(end: int, *fds: int) -> None:
    with socket.socket(fileno=os.dup(end)) as out:
        socket.send_fds(out, [b"!"], fds)


def start(ask: wire.Message, fds: list[int]) -> None:
    """For hosts without the lxc-start program: dearer, as the monitor is a copy of this process."""
    container = _container(ask)
    os.environ["PATH"] = ask["search"]
    if not container.start(daemonize=True, close_fds=True):
        raise OSError("LXC could not start the container")
    monitor = _monitor_of(container.init_pid)
    with open(ask["pid_file"], "w") as file:
        file.write(f"{monitor}\n")


def _monitor_of(init: int) -> int:
    with open(f"/proc/{init}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def group(ask: wire.Message, fds: list[int]) -> bool:
    """Set a control group item through the monitor: device rules on v2."""
    return bool(_container(ask).set_cgroup_item(ask["item"], ask["value"]))


def mount_mapped(ask: wire.Message, fds: list[int]) -> None:
    mounts.mount_mapped(ask["source"], ask["target"], ask["idmap"], readonly=ask["readonly"])


def mount_overlay(ask: wire.Message, fds: list[int]) -> None:
    mounts.mount_overlay(ask["lower"], ask["upper_work"], ask["target"], ask["idmap"])


def unmount(ask: wire.Message, fds: list[int]) -> None:
    mounts.unmount(ask["target"], lazy=ask["lazy"])


def inject(ask: wire.Message, fds: list[int]) -> None:
    mounts.inject(
        fds[0], ask["source"], ask["target"],
        mapped=ask["mapped"], readonly=ask["readonly"], recursive=ask["recursive"],
        options=ask["options"],
    )  # fmt: skip


def eject(ask: wire.Message, fds: list[int]) -> None:
    mounts.eject(fds[0], ask["target"])


def tell(ask: wire.Message, fds: list[int]) -> None:
    """Say in the container whose first process is `fds[0]` what the kernel says of a device."""
    uevent.tell(fds[0], uevent.message(ask["action"], ask["facts"]))


def files(ask: wire.Message, fds: list[int]) -> dict[str, int]:
    """Leave a file server behind, on the socket `fds[0]`, within the root `fds[1]`: a container's first
    process, or a folder.
    """
    if ask["running"]:
        mounts.enter(fds[1])
    else:
        mounts.enter_folder(fds[1])
    pid = os.fork()
    if pid == 0:
        os.dup2(fds[0], 0)
        _libc.close_range(1, ctypes.c_uint(~0), 0)
        server.run(socket.socket(fileno=0))
    return {"pid": pid}


Operation = Callable[[wire.Message, list[int]], Any]

OPERATIONS: dict[str, Operation] = {
    work.__name__: work
    for work in (
        attach, console, files, start, group, mount_mapped, mount_overlay, unmount, inject, eject, tell,
        render,
    )
}  # fmt: skip


AGAIN = ("mount_mapped", "mount_overlay", "unmount")
"""Those that leave their process fit for another, and take no descriptors."""


class Helper:
    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._buffer = wire.buffer()
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in HANDLED[1:]:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.epoll()
        self._poll.register(daemon.fileno(), select.EPOLLIN)
        self._poll.register(self._woken, select.EPOLLIN)
        self._answers: dict[int, tuple[int, int]] = {}
        """Our end of a working child: (id of its request, its pid; 0 once it was killed)."""
        self._kept: list[tuple[int, int]] = []
        """Children that wait: our end, and pid."""
        self._children: set[int] = set()
        """All of them, and those that are not reaped yet."""
        self._attached: dict[int, int] = {}
        """Pid of an attached process: id of its request."""
        self._ended: dict[int, int] = {}
        """Statuses of processes that ended before their child told us of them."""

    def serve(self) -> NoReturn:
        while True:
            for ready, _ in self._poll.poll():
                if ready == self._woken:
                    self._drain()
                elif ready == self._daemon.fileno():
                    self._take()
                elif ready in self._answers:
                    self._answer(ready)
            self._reap()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _take(self) -> None:
        ask, fds = wire.receive(self._daemon, self._buffer)
        if ask is None:
            raise SystemExit(0)
        if ask["op"] == "networks":
            # Not in a child: a fork costs more than asking twenty containers.
            wire.send(self._daemon, {"id": ask["id"], "result": networks(ask["pids"])})
        elif ask["op"] == "cancel":
            self._cancel(ask["id"])
        elif ask["op"] not in AGAIN or not self._hand_on(ask):
            self._fork(ask, fds)
        for fd in fds:
            os.close(fd)

    def _cancel(self, number: int) -> None:
        """It may have answered already, and be about to be kept: that must not be, as it is about to end."""
        for end, (asked, child) in self._answers.items():
            if asked == number and child in self._children:
                os.kill(child, signal.SIGKILL)  # not reaped, so the pid is still its own
                self._answers[end] = (number, 0)

    def _hand_on(self, ask: wire.Message) -> bool:
        """To a child that waits; False if there is none."""
        text = json.dumps(ask).encode()
        while self._kept and len(text) <= ASK:
            end, child = self._kept.pop()
            try:
                os.write(end, text)
            except OSError:  # it was ended
                os.close(end)
            else:
                self._await(end, ask, child)
                return True
        return False

    def _fork(self, ask: wire.Message, fds: list[int]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            for end in (ours.fileno(), *self._answers, *(end for end, _ in self._kept)):
                os.close(end)  # or others would not see ours closed while this one waits
            _work(ask, fds, theirs.fileno())
        theirs.close()
        self._children.add(child)
        self._await(ours.detach(), ask, child)

    def _await(self, end: int, ask: wire.Message, child: int) -> None:
        self._answers[end] = (ask["id"], child)
        self._poll.register(end, select.EPOLLIN)

    def _keep(self, end: int, child: int, reply: wire.Message) -> None:
        """Or have it end."""
        if child and reply.get("again") and len(self._kept) < KEPT:
            self._kept.append((end, child))
        else:
            os.close(end)

    def _answer(self, end: int) -> None:
        number, child = self._answers.pop(end)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            said = os.read(end, RESULT)
        self._poll.unregister(end)
        reply = json.loads(said) if said else {"error": "The helper's child was ended", "errno": 0}
        self._keep(end, child, reply)
        reply["id"] = number
        result = reply.get("result")
        if not isinstance(result, dict) or "pid" not in result:
            wire.send(self._daemon, reply)
            return
        pid = result["pid"]
        self._attached[pid] = number
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            wire.send(self._daemon, reply)
        else:
            wire.send(self._daemon, reply, [handle])
            os.close(handle)
        if pid in self._ended:
            self._tell_exit(pid, self._ended.pop(pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._attached:
                self._tell_exit(pid, status)
            elif pid in self._children:
                self._children.remove(pid)
            else:
                self._ended[pid] = status
        if not self._answers:
            self._ended.clear()  # monitors and other children of liblxc: nobody will ask

    def _tell_exit(self, pid: int, status: int) -> None:
        wire.send(self._daemon, {"id": self._attached.pop(pid), "exit": os.waitstatus_to_exitcode(status)})


def _work(ask: wire.Message, fds: list[int], end: int) -> NoReturn:
    """In the child: do what is asked, answer, and end; or wait for more, until the other end is closed."""
    try:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        _libc.close_range(3, ctypes.c_uint(~0), CLOSE_RANGE_CLOEXEC)
        while _done(ask, fds, end) and (said := os.read(end, ASK)):
            ask = json.loads(said)
    finally:
        os._exit(0)  # whatever happened, the parent's code must not run on in the child


def _done(ask: wire.Message, fds: list[int], end: int) -> bool:
    """Whether the process can be asked again."""
    reply: wire.Message = {"error": f"{ask['op']} failed in the helper", "errno": 0}
    try:
        reply = {"result": OPERATIONS[ask["op"]](ask, fds), "again": ask["op"] in AGAIN}
    except OSError as error:
        what = error.strerror or str(error)
        reply = {"error": f"{error.filename}: {what}" if error.filename else what, "errno": error.errno or 0}
    finally:
        os.write(end, json.dumps(reply).encode()[:RESULT])
    return bool(reply.get("again"))


def main(fd: int) -> NoReturn:
    """`fd`: our end of the socket."""
    assert stat.S_ISSOCK(os.fstat(fd).st_mode)
    os.set_inheritable(fd, False)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()  # children share our pages as long as nothing writes to them
    try:
        Helper(socket.socket(fileno=fd)).serve()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
