"""System calls of other architectures than the host's own, refused: those of 32-bit programs on x86_64.

LXC's policies cannot tell them apart: what they say of one architecture liblxc 5.0.2 applies to all. So it is
a filter of our own, which the processes that start a container or enter it put on before LXC puts on its.
Standard library only.
"""

import ctypes
import os
import platform
import struct
import sys

PR_SET_SECCOMP, MODE_FILTER = 22, 2
LOAD, EQUALS, HAS, RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h, with words and constants
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
X32 = 0x40000000  # bit of the numbers of calls of 32-bit programs with 64-bit registers
ALLOW, ABSENT = 0x7FFF0000, 0x50026  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_…"""


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict() -> None:
    """This process and all that it starts may make no such call. Needs CAP_SYS_ADMIN. Raises OSError."""
    steps = (
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUALS, 0, 3, ARCHITECTURES[platform.machine()]),
        (LOAD, 0, 0, NUMBER),
        (HAS, 1, 0, X32),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ABSENT),
    )
    text = b"".join(struct.pack("=HBBI", *step) for step in steps)
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(steps), text)), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "seccomp")


def main() -> None:
    """Become the program that the words name, restricted."""
    restrict()
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - words, and no shell
