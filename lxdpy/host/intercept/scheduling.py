"""`sched_setscheduler` for who may set priorities in the container, of the container's threads only.

The kernel asks for that right on the host, as a real-time thread takes its time from everybody; the switch
grants it. A number is the caller's own pid namespace's, so it is the kernel that is asked there whose it is:
by a child of ours in that namespace, that looks first whether the thread is of the container's user namespace
or of one made in it. What the container has not the right to itself is left to the kernel.
"""

import ctypes
import errno
import fcntl
import os
import struct

from lxdpy.host import mounts
from lxdpy.host.companion.process import Task
from lxdpy.host.intercept.caller import CAP_SYS_NICE, Caller, said_by
from lxdpy.host.intercept.calls import Arguments, Leave

OTHER, FIFO, ROUND_ROBIN, BATCH, IDLE = 0, 1, 2, 3, 5
POLICIES = frozenset({OTHER, FIFO, ROUND_ROBIN, BATCH, IDLE})
RESET_ON_FORK = 0x40000000
GET_PARENT = 0xB702  # NS_GET_PARENT
DEEPEST = 33  # user namespaces in each other, which the kernel allows
PARAMETER = struct.Struct("=i")

_libc = ctypes.CDLL(None, use_errno=True)


def set_scheduler(caller: Caller, arguments: Arguments, task: Task) -> int:
    number, policy = (ctypes.c_int(word & 0xFFFFFFFF).value for word in arguments[:2])
    if number < 0 or policy & ~RESET_ON_FORK not in POLICIES or not arguments[2]:
        raise Leave  # the kernel knows what is wrong
    if not caller.has(CAP_SYS_NICE):
        raise Leave
    said = caller.data(arguments[2], PARAMETER.size)
    if len(said) != PARAMETER.size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    (priority,) = PARAMETER.unpack(said)
    number = number or caller.status().number
    home, processes = caller.home(), caller.namespace("pid")
    caller.check()

    def inside() -> None:
        mounts.setns(processes, mounts.CLONE_NEWPID)
        said_by(lambda: _set(task["nodes"], home, number, policy, priority))

    said_by(inside)
    return 0


def _set(folder: str, home: int, number: int, policy: int, priority: int) -> None:
    """In a process of that pid namespace, and the host's rights."""
    mounts.unshare(mounts.CLONE_NEWNS)
    mounts.mount("none", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount("proc", folder, "proc")
    try:
        theirs = os.open(f"{folder}/{number}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    if not is_within(theirs, home):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    if _libc.sched_setscheduler(number, policy, PARAMETER.pack(priority)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def is_within(namespace: int, home: int) -> bool:
    """Whether a user namespace (a descriptor) is the one of that inode, or was made in it."""
    for _ in range(DEEPEST):
        if os.fstat(namespace).st_ino == home:
            return True
        try:
            namespace = fcntl.ioctl(namespace, GET_PARENT)
        except OSError:  # the host's has none
            return False
    return False
