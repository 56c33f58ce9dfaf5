"""The system calls a container may not make, in liblxc's own notation. PURE."""

import re
from collections.abc import Collection

DENIED = ("kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module")
"""Loading a kernel or modules, and opening files by handle (the way out of a bind mount). LXD's list."""

_NO_OTHER_LISTENER = (
    "seccomp errno 22 [1,8,SCMP_CMP_MASKED_EQ,8]",  # SECCOMP_FILTER_FLAG_NEW_LISTENER
    "seccomp errno 22 [1,2146435072,SCMP_CMP_MASKED_EQ,2146435072]",  # SECCOMP_RET_TRACE
)
_NEW_MOUNT = 0xC0ED0000 | sum(1 << bit for bit in (0, 1, 2, 3, 4, 6, 7, 10, 11, 14, 15, 16, 21, 24, 25))
_NEW_MOUNT_CALLS = ("fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount")
INTERCEPTED = {
    # S_IFCHR and S_IFBLK, of S_IFMT.
    "mknod": tuple(
        f"{call} notify [{argument},{kind},SCMP_CMP_MASKED_EQ,61440]"
        for call, argument in (("mknod", 1), ("mknodat", 2))
        for kind in (8192, 24576)
    ),
    # Only what makes a file system anew: none of the flags that change, move or bind one that is there. As
    # the newer calls would need several steps to be understood together, they are not there, as with LXD.
    "mount": (
        f"mount notify [3,0,SCMP_CMP_MASKED_EQ,{2**64 - 1 & ~_NEW_MOUNT}]",
        *(f"{call} errno 38" for call in _NEW_MOUNT_CALLS),
    ),
    # BPF_PROG_LOAD, _ATTACH, _DETACH.
    "bpf": tuple(f"bpf notify [0,{command},SCMP_CMP_EQ]" for command in (5, 8, 9)),
    "sched_setscheduler": ("sched_setscheduler notify",),
    "sysinfo": ("sysinfo notify",),
    # Of values of one byte.
    "setxattr": tuple(f"{call} notify [3,1,SCMP_CMP_EQ]" for call in ("setxattr", "lsetxattr", "fsetxattr")),
}
"""What is to be passed on, by the last words of `security.syscalls.intercept.…`. LXD's, and two more."""

ABSENT = 38  # ENOSYS: programs then do without, while EPERM makes some of them give up


def policy(
    *, deny_default: bool = True, deny: str = "", allow: str = "", intercept: Collection[str] = ()
) -> str:
    """Text for `lxc.seccomp.profile`; "" when nothing is to be filtered.

    `deny` has one system call a line, and what follows it in liblxc's notation ("mount errno 1"); a bare
    name fails with ENOSYS. `allow`, when given, turns the policy round: what is not in it is refused.
    `intercept`: which of INTERCEPTED are passed on.
    """
    passed = [line for name in sorted(intercept) for line in INTERCEPTED[name]]
    passed = [*_NO_OTHER_LISTENER, *passed] if passed else []
    if allow.strip():
        return "\n".join(["2", "allowlist", "[all]", *_listed(_lines(allow), passed)]) + "\n"
    refused = {line.split()[0] for line in _lines(deny) if "[" not in line}
    passed = [line for line in passed if line.split()[0] not in refused]
    if not asks("\n".join(passed)):
        passed = []
    calls = [f"{name} errno {ABSENT}" for name in DENIED] if deny_default else []
    calls += passed
    calls += [call if " " in call else f"{call} errno {ABSENT}" for call in _lines(deny)]
    if not calls and not deny_default:
        return ""
    # umount -f on a network mount shared with the host would cut the host off as well.
    guard = ["reject_force_umount"] if deny_default else []
    return "\n".join(["2", "denylist", *guard, "[all]", *calls]) + "\n"


def _listed(allowed: list[str], passed: list[str]) -> list[str]:
    """An allow list, with what is passed on: of a call that is allowed whatever it says all is passed on.

    For libseccomp a rule for all of a call makes those for a part of it void.
    """
    plain = {line for line in allowed if " " not in line}
    both = sorted(plain & {words[0] for line in passed if (words := line.split())[1] == "notify"})
    return [
        *(f"{call} notify" for call in both),
        *(line for line in allowed if line not in both),
        *(line for line in passed if line.split()[0] not in plain),
    ]


def asks(policy: str) -> str:
    """The first line that has a call passed on, "" if there is none."""
    return next((line for line in _lines(policy) if re.match(r"\w+\s+notify\b", line)), "")


def _lines(text: str) -> list[str]:
    return [stripped for line in text.splitlines() if (stripped := line.strip())]
