"""A container's policy of system calls, for a program that we start in it: read as liblxc reads it.

LXC cannot be asked to start it, as its monitor waits for our answer. What is passed on is left to the kernel
here, and calls of other architectures than the host's own end the program. With a line that is not understood
there is no such program.
"""

import ctypes
import errno
import os
import re

from lxdpy.host.intercept.joining import (
    ALLOW,
    CONDITION,
    NO_NEW_PRIVILEGES,
    OPERATIONS,
    Condition,
    condition_of,
    quiet,
)

KILL, TRAP, ERRNO = 0, 0x30000, 0x50000  # SCMP_ACT_…
KINDS = {"denylist": (ALLOW, KILL), "allowlist": (KILL, ALLOW)}
"""What becomes of other calls than those listed, and of those without a word."""
OLD_KINDS = {"blacklist": "denylist", "whitelist": "allowlist"}
ACTIONS = {"kill": KILL, "trap": TRAP, "allow": ALLOW}
RULE = re.compile(
    r"(?P<call>\w+)(?:\s+(?:errno\s+(?P<errno>\d+)|(?P<word>kill|trap|allow)))?"
    r"(?P<conditions>(?:\s*\[[^]]*\])*)\s*"
)
FORCED = "umount2 errno 13 [1,1,SCMP_CMP_MASKED_EQ,1]"  # with MNT_FORCE
SAME = (-errno.EEXIST, -errno.EACCES)  # there is such a rule; it says what holds for all others

Rule = tuple[str, int, list[Condition]]


def rules(policy: str) -> tuple[int, list[Rule]]:
    """What becomes of other calls, and the rules. Raises ValueError with the line that is not understood."""
    lines = [line.strip() for line in quiet(policy).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    kind = OLD_KINDS.get(lines[1], lines[1]) if lines[1:] else ""
    if not lines or lines[0] != "2" or kind not in KINDS:
        raise ValueError(" ".join(lines[:2]))
    others, listed = KINDS[kind]
    body = [FORCED if line == "reject_force_umount" else line for line in lines[2:] if line != "[all]"]
    return others, [_rule(line, listed) for line in body]


def _rule(line: str, listed: int) -> Rule:
    found = RULE.fullmatch(line)
    conditions = CONDITION.findall(found["conditions"]) if found else []
    if not found or found["conditions"].count("[") != len(conditions):
        raise ValueError(line)
    if any(word not in OPERATIONS for _, _, word, _ in conditions):
        raise ValueError(line)
    action = ERRNO | int(found["errno"]) if found["errno"] else ACTIONS.get(found["word"] or "", listed)
    return found["call"], action, [condition_of(*one) for one in conditions]


class Confinement:
    """A filter that is ready to be put on. Raises OSError, of EPERM, for a policy that is not understood."""

    def __init__(self, policy: str) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        try:
            others, found = rules(policy) if policy else (ALLOW, [])
        except ValueError:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None
        self._filter = ctypes.c_void_p(self._library.seccomp_init(others))
        self._library.seccomp_attr_set(self._filter, NO_NEW_PRIVILEGES, 0)
        for call, action, conditions in found:
            number = self._library.seccomp_syscall_resolve_name(call.encode())
            every = (Condition * len(conditions))(*conditions)
            add = self._library.seccomp_rule_add_exact_array
            done = add(self._filter, action, number, len(every), every) if number >= 0 else 0
            if done not in (0, *SAME):
                raise OSError(-done, os.strerror(-done))

    def put_on(self) -> None:
        """By the process as root of its user namespace."""
        if done := self._library.seccomp_load(self._filter):
            raise OSError(-done, os.strerror(-done))
