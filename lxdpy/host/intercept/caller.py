"""Who made a call: what may be known of it, what its memory says, and what it would find under a path.

For processes of one thread, which end after it. All raise OSError.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from lxdpy.host import mounts
from lxdpy.host.intercept.message import Call

CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_CHROOT, CAP_SYS_ADMIN = 1, 12, 18, 21
CAP_SYS_NICE, CAP_MKNOD, CAP_BPF = 23, 27, 39
NOTIF_ID_VALID, NOTIF_ADD = 0x40082102, 0x40182103  # SECCOMP_IOCTL_NOTIF_ID_VALID, …_ADDFD
LONGEST = 4096  # bytes of a string, its end included: PATH_MAX
HERE = -100  # AT_FDCWD
LIMITS = 16  # RLIM_NLIMITS
CAPABILITY_VERSION = 0x20080522
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
PIDFD_GETFD, PIDFD_THREAD = 438, os.O_EXCL
KCMP, KCMP_FILES = (312 if platform.machine() == "x86_64" else 272), 2
FACCESSAT2, AT_EACCESS, AT_EMPTY_PATH = 439, 0x200, 0x1000
FOUND = struct.Struct("i")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Status(NamedTuple):
    """Of a thread, as its file in /proc has it: ids of who opens it, those that count for files."""

    uid: int
    gid: int
    groups: list[int]
    umask: int
    capabilities: int
    """A mask; effective in its user namespace."""
    number: int
    """Of the thread, in its own pid namespace."""
    process: int
    """The host's number of the process that it is of."""
    bounding: int = 0
    """A mask of capabilities that it may ever have."""
    no_new_privileges: bool = False


class Caller:
    """By descriptors that LXC opened while the call was waiting."""

    def __init__(self, call: Call, proc: int, memory: int, notify: int) -> None:
        self._call, self.thread, self.init = call.id, call.thread, call.init
        self.proc, self._memory, self._notify = proc, memory, notify

    def check(self) -> None:
        """Raises ESRCH unless the call still waits: what was read before was then the caller's."""
        try:
            fcntl.ioctl(self._notify, NOTIF_ID_VALID, struct.pack("=Q", self._call))
        except OSError:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None

    def string(self, address: int) -> str:
        """A string of its memory, as the kernel would take it for a path. "" for a null pointer."""
        if not address:
            return ""
        text, end, _ = self.data(address, LONGEST).partition(b"\0")
        if not end:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return os.fsdecode(text)

    def data(self, address: int, size: int) -> bytes:
        """As much as there is of so many bytes."""
        try:
            found = os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            found = b""
        if size and not found:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return found

    def write(self, address: int, data: bytes) -> None:
        """Into its memory, if it still waits."""
        self.check()
        try:
            done = os.pwrite(self._memory, data, address)
        except (OSError, OverflowError):
            done = 0
        if done != len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def status(self) -> Status:
        with open(self._opened("status", os.O_RDONLY), encoding="ascii", errors="replace") as file:
            fields = dict(line.rstrip("\n").partition(":\t")[::2] for line in file)
        return Status(
            uid=int(fields["Uid"].split()[3]),
            gid=int(fields["Gid"].split()[3]),
            groups=[int(group) for group in fields["Groups"].split()],
            umask=int(fields["Umask"], 8),
            capabilities=int(fields["CapEff"], 16),
            number=int(fields["NSpid"].split()[-1]),
            process=int(fields["Tgid"]),
            bounding=int(fields["CapBnd"], 16),
            no_new_privileges=fields["NoNewPrivs"] == "1",
        )

    def demand(self, capability: int) -> None:
        """Raises EPERM unless it has that, in the user namespace of the container itself."""
        if not self.has(capability):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def has(self, capability: int) -> bool:
        """As `demand`."""
        theirs = os.stat("ns/user", dir_fd=self.proc).st_ino
        return theirs == self.home() and bool(self.status().capabilities >> capability & 1)

    def home(self) -> int:
        """The inode of the container's own user namespace."""
        return os.stat(f"/proc/{self.init}/ns/user").st_ino

    def start_of(self, descriptor: int) -> int:
        """Where relative paths begin, for a descriptor argument of a call ending in "at"."""
        number = ctypes.c_int(descriptor & 0xFFFFFFFF).value
        return self._opened("cwd" if number == HERE else f"fd/{number}", os.O_PATH)

    def file(self, descriptor: int) -> int:
        """A file that it has open, or EBADF."""
        try:
            return self._opened(f"fd/{ctypes.c_int(descriptor & 0xFFFFFFFF).value}", os.O_PATH)
        except FileNotFoundError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def take(self, descriptor: int) -> int:
        """A copy of a descriptor of its own; ask `check` before it is believed. Raises EBADF."""
        number = ctypes.c_int(descriptor & 0xFFFFFFFF).value
        found: int = _libc.syscall(PIDFD_GETFD, self._handle(), number, 0)
        if found < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return found

    def _handle(self) -> int:
        """A pidfd for its descriptors: of its process, where the kernel has none of threads."""
        with contextlib.suppress(OSError):
            return os.pidfd_open(self.thread, PIDFD_THREAD)
        process = self.status().process
        if process != self.thread and _libc.syscall(KCMP, self.thread, process, KCMP_FILES, 0, 0) != 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return os.pidfd_open(process)

    def give(self, descriptor: int) -> int:
        """Have the caller own a copy, which programs that it starts do not; its number there."""
        asked = struct.pack("=QIIII", self._call, 0, descriptor, 0, os.O_CLOEXEC)
        return int(fcntl.ioctl(self._notify, NOTIF_ADD, bytearray(asked)))

    def device_group(self) -> str:
        """Folder of the control group whose rules on devices it is under."""
        return self.group("devices")

    def group(self, controller: str) -> str:
        """Folder of its control group that has a controller: of version 1, or else the one of version 2."""
        groups = self._groups()
        if found := groups.get(controller) or groups.get(""):
            return found
        raise PermissionError(errno.EPERM, f"No control group has {controller}")

    def groups(self) -> list[str]:
        """Folders of all its control groups."""
        return sorted(set(self._groups().values()))

    def _groups(self) -> dict[str, str]:
        """Folders by controller; "" for version 2, with a name as `name=systemd`. Those that are mounted."""
        with open(self._opened("cgroup", os.O_RDONLY)) as file:
            lines = [words for line in file if len(words := line.rstrip("\n").split(":", 2)) == 3]
        paths = {name: path for _, names, path in lines for name in names.split(",")}
        found: dict[str, str] = {}
        with open("/proc/self/mountinfo") as mounted:
            for line in mounted:
                before, _, after = line.partition(" - ")
                kind, _, options = after.split(" ", 2)
                names = {"cgroup": options.strip().split(","), "cgroup2": [""]}.get(kind, [])
                top, place = before.split()[3:5]
                if top == "/":  # a whole hierarchy, and not a part of one that is bound elsewhere
                    found = {name: place + paths[name] for name in names if name in paths} | found
        return found

    def root(self) -> int:
        return self._opened("root", os.O_PATH)

    def limits(self) -> list[tuple[int, tuple[int, int]]]:
        """Its resource limits, by RLIMIT_…."""
        return [(number, resource.prlimit(self.thread, number)) for number in range(LIMITS)]

    def oom_score(self) -> str:
        with open(self._opened("oom_score_adj", os.O_RDONLY)) as file:
            return file.read()

    def label(self) -> str:
        """What AppArmor calls it; "" where there is none, or it does not confine it."""
        try:
            with open(self._opened("attr/apparmor/current", os.O_RDONLY)) as file:
                said = file.read().strip("\0\n ")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return ""
            raise
        return "" if said == "unconfined" else said.rpartition(" (")[0] or said

    def namespace(self, kind: str) -> int:
        return self._opened(f"ns/{kind}", os.O_RDONLY)

    def _opened(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self.proc)

    def look(self, start: int, what: Callable[[], list[int]], groups: str = "") -> list[int]:
        """Descriptors that `what` opens as the caller, with `start` as its working directory.

        `groups`: folder of a control group to be in meanwhile, for its rules on devices. Forks.
        """
        namespace, root = self.namespace("user"), self.root()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            try:
                if groups:
                    join(groups)
                self._become(namespace, root, start)
                found = what()
                socket.send_fds(theirs, [FOUND.pack(0)], found)
            except OSError as error:
                theirs.send(FOUND.pack(error.errno or errno.EPERM))
            finally:
                os._exit(0)
        theirs.close()
        said, found, _, _ = socket.recv_fds(ours, FOUND.size, 4, socket.MSG_CMSG_CLOEXEC)
        ours.close()
        os.waitpid(child, 0)
        (number,) = FOUND.unpack(said) if said else (errno.EPERM,)
        if number:
            raise OSError(number, os.strerror(number))
        return found

    def _become(self, namespace: int, root: int, start: int) -> None:
        """Its rights are taken last: they may not be enough for the steps before."""
        mounts.setns(namespace, mounts.CLONE_NEWUSER)
        os.fchdir(root)
        os.chroot(".")
        os.fchdir(start)
        be_like(self.status())
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # other ids would have cleared it


def be_like(status: Status, capabilities: int | None = None) -> None:
    """Take on somebody's ids for files, and his capabilities or those given."""
    os.setgroups(status.groups)
    _libc.setfsgid(status.gid)
    _libc.setfsuid(status.uid)
    os.umask(status.umask)
    keep_only(status.capabilities if capabilities is None else capabilities)


def be_root_like(status: Status) -> None:
    """Take on the ids of a root, in its own user namespace, and what limits what it may ever do."""
    for capability in range(64):
        if not status.bounding >> capability & 1:
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(status.groups)
    os.setresgid(status.gid, status.gid, status.gid)
    os.setresuid(status.uid, status.uid, status.uid)
    os.umask(status.umask)


def may(handle: int, mode: int) -> None:
    """Raises EACCES unless we may do that to what a descriptor stands for; `mode` as of access(2)."""
    if _libc.syscall(FACCESSAT2, handle, b"", mode, AT_EACCESS | AT_EMPTY_PATH) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def said_by(work: Callable[[], object]) -> None:
    """Have a child do something, and raise the OSError that it ended with."""
    child = os.fork()
    if child == 0:
        status = errno.EPERM
        try:
            work()
            status = 0
        except OSError as error:
            status = error.errno or errno.EPERM
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        number = status if status > 0 else errno.EPERM
        raise OSError(number, os.strerror(number))


def keep_only(capabilities: int) -> None:
    """Be rid of all others, for good."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    head = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    if _libc.capset(head, struct.pack("=6I", low, low, 0, high, high, 0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def join(group: str) -> None:
    """Be in a control group, given as its folder."""
    handle = os.open(os.path.join(group, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
    os.write(handle, b"0")
    os.close(handle)
