"""Programs started in a container from outside, whose calls are passed on too: to us, not by LXC's monitor.

LXC's own way is broken in 5.0.2. The new process's listener may come to the caller before its number does:
then LXC says that it failed while the program runs, without anybody to ask. And a monitor that has lost us
takes on no process before it asks again for one that it knows. So LXC is shown a policy that passes nothing
on, and what the true one passes on is a second filter, loaded by the process itself; its listener goes to our
process, and ends with that. With nobody there calls are left to the kernel.

In a process of one thread, which ends after it. Nothing may be imported in `Joining.join`: it runs inside.
"""

import contextlib
import ctypes
import os
import re
import socket
import struct

from lxdpy.host import mounts

LISTEN = b"listen"
JOIN = struct.Struct("=6si")  # LISTEN, and the number of the container's first process
ALLOW, NOTIFY, INVALID = 0x7FFF0000, 0x7FC00000, 0x50016  # SCMP_ACT_…; the last is SCMP_ACT_ERRNO(EINVAL)
BAD_ARCHITECTURE, NO_NEW_PRIVILEGES = 2, 3  # SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_NNP
OPERATIONS = {
    f"SCMP_CMP_{word}": number
    for number, word in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}
CONDITION = re.compile(r"\[(\d+),(\d+),(SCMP_CMP_\w+)(?:,(\d+))?\]")
PASSED = re.compile(r"\s*(?:(?P<call>\w+)\s+notify\b|(?P<guard>seccomp) errno 22 \[)")
"""What is passed on; and what keeps other listeners out, ours too if it comes first."""
ACTION = re.compile(r"\bnotify\b|\berrno 22\b")


class Condition(ctypes.Structure):
    """struct scmp_arg_cmp. A mask comes before what it lets through."""

    _fields_ = (("argument", ctypes.c_uint), ("operation", ctypes.c_int),
                ("first", ctypes.c_uint64), ("second", ctypes.c_uint64))  # fmt: skip


def condition_of(argument: str, value: str, word: str, mask: str) -> Condition:
    """In the order that LXC's policies have."""
    return Condition(int(argument), OPERATIONS[word], int(mask or value), int(value) if mask else 0)


def quiet(policy: str) -> str:
    """The policy without what it passes on: the same one if that is nothing.

    An allow list allows that, and to load our filter: a second listener the kernel itself refuses.
    """
    lines = policy.splitlines(keepends=True)
    if not any(found["call"] for line in lines if (found := PASSED.match(line))):
        return policy
    listed = any(line.split()[:1] in (["allowlist"], ["whitelist"]) for line in lines[1:2])
    return "".join(
        line if not PASSED.match(line) else ACTION.sub("allow", line, count=1) if listed else ""
        for line in lines
    )


def hide(policy: str, instead: str) -> None:
    """Find one file at the other's path from now on: in a mount namespace of our own."""
    mounts.unshare(mounts.CLONE_NEWNS)
    mounts.mount("none", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.mount(instead, policy, "", mounts.MS_BIND)


class Joining:
    """What a process needs to have the calls of a policy passed on. Raises OSError if nobody is there."""

    def __init__(self, policy: str, address: str, init: int) -> None:
        self._init = init
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ALLOW))
        self._library.seccomp_attr_set(self._filter, BAD_ARCHITECTURE, ALLOW)
        self._library.seccomp_attr_set(self._filter, NO_NEW_PRIVILEGES, 0)
        with open(policy) as file:
            for line in file:
                if known := PASSED.match(line):
                    self._add(line, known["call"] or known["guard"], NOTIFY if known["call"] else INVALID)
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.connect(address)

    def _add(self, line: str, call: str, action: int) -> None:
        found = CONDITION.findall(line)
        if any(word not in OPERATIONS for _, _, word, _ in found):
            return  # LXC does not know it either
        conditions = [condition_of(*words) for words in found]
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            every = (Condition * len(conditions))(*conditions)
            self._library.seccomp_rule_add_exact_array(self._filter, action, number, len(conditions), every)

    def join(self) -> None:
        """In the process, as root."""
        if self._library.seccomp_load(self._filter) == 0:
            listener = self._library.seccomp_notify_fd(self._filter)
            with contextlib.suppress(OSError):  # our process has just ended: the kernel then answers ENOSYS
                socket.send_fds(self._end, [JOIN.pack(LISTEN, self._init)], [listener])
            os.close(listener)
        self._end.close()
