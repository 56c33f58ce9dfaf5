"""`mount` of a file system by a program of the container's own, which the config names for it: by FUSE.

The program runs as if the caller had started it: in its namespaces, control groups, root and limits, with its
ids and no more capabilities than it may have, under the container's policy of system calls. So it can do
nothing that the caller could not do. It is started from outside only because the caller is in the middle of
a system call; what we have on the way there is out of the container's sight (`PR_SET_DUMPABLE`), and closed.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal

from lxdpy.host import mounts
from lxdpy.host.companion.process import Task
from lxdpy.host.intercept.caller import HERE, PR_SET_PDEATHSIG, Caller, be_root_like, join, said_by
from lxdpy.host.intercept.confining import Confinement

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
NAMESPACES = ("mnt", "net", "ipc", "uts", "cgroup")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
TELL, ALL = 3, 1 << 30  # descriptors
FLAGS = {
    1: "ro", 2: "nosuid", 4: "nodev", 8: "noexec", 16: "sync", 128: "dirsync", 1024: "noatime",
    2048: "nodiratime",
}  # fmt: skip
"""Of mount(2), in the words of libfuse."""
LABELS = "attr/apparmor/current", "/proc/self/attr/apparmor/exec"

_libc = ctypes.CDLL(None, use_errno=True)


def words(program: str, source: str, target: str, flags: int, data: str) -> list[str]:
    options = [*([data] if data else []), *(word for flag, word in FLAGS.items() if flags & flag)]
    return [program, source, target, *(["-o", ",".join(options)] if options else [])]


def mount(caller: Caller, command: list[str], task: Task) -> int:
    """ENODEV where the container has no such program, EINVAL if it fails."""
    with open(task["policy"]) if os.path.exists(task["policy"]) else contextlib.nullcontext() as file:
        confinement = Confinement(file.read() if file else "")
    start = Start(caller, command, confinement)
    caller.check()
    said_by(start.outside)
    return 0


class Start:
    """What is known of the caller before it is entered."""

    def __init__(self, caller: Caller, command: list[str], confinement: Confinement) -> None:
        self._caller, self._command, self._confinement = caller, command, confinement
        self._namespaces = [caller.namespace(kind) for kind in NAMESPACES]
        self._user, self._processes = caller.namespace("user"), caller.namespace("pid")
        self._root, self._start = caller.root(), caller.start_of(HERE)
        self._groups = caller.groups()
        self._limits = caller.limits()
        self._label = caller.label()
        self._tell = -1
        self._nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def outside(self) -> None:
        """In a process of its own: have another in the caller's pid namespace, and see how it ends."""
        _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        for group in self._groups:
            join(group)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(self._caller.oom_score())
        mounts.setns(self._processes, mounts.CLONE_NEWPID)
        begun, self._tell = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            try:
                self._inside()
            except OSError as error:
                os.write(self._tell, bytes([error.errno or errno.EPERM]))
            finally:
                os._exit(1)
        os.close(self._tell)
        failed = os.read(begun, 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if failed:
            raise OSError(failed[0], os.strerror(failed[0]))
        if status:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _inside(self) -> None:
        os.setsid()
        if self._label:
            with open(LABELS[1], "w") as file:
                file.write(f"exec {self._label}")
        for number, limit in self._limits:
            resource.setrlimit(number, limit)
        for namespace in self._namespaces:
            mounts.setns(namespace, 0)
        os.fchdir(self._root)
        os.chroot(".")
        os.fchdir(self._start)
        mounts.setns(self._user, mounts.CLONE_NEWUSER)
        status = self._caller.status()
        be_root_like(status)
        self._close()
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if status.no_new_privileges:
            _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        self._confinement.put_on()
        self._execute()

    def _close(self) -> None:
        """Nothing that we had open may be there when the program begins: folders of the host are among it."""
        for standard in (0, 1, 2):
            os.dup2(self._nothing, standard)
        self._tell = os.dup2(self._tell, TELL, inheritable=False)
        os.closerange(TELL + 1, ALL)

    def _execute(self) -> None:
        program = self._command[0]
        folders = [""] if "/" in program else [f"{one}/" for one in ENVIRONMENT["PATH"].split(":")]
        for folder in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.execve(folder + program, self._command, ENVIRONMENT)  # noqa: S606 - words, and no shell
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
