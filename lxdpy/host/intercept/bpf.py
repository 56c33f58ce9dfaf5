"""`bpf` for programs that decide on devices: to load one, attach it to a group of the container, detach it.

A container cannot do it alone, as the kernel asks for rights on the host. Such a program can refuse a device
only, never allow one that a group above refuses. It is copied once, and must do no more than compute: nothing
in it may name maps, types or functions of the kernel. It is loaded with two capabilities and no other, so the
kernel checks it as that of somebody who is not trusted; and in the caller's control group for memory, which
pays for it. What it is attached to must lie below the container's own group, where nothing is LXC's.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from lxdpy.host.companion.process import Task
from lxdpy.host.intercept.caller import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, Caller, join, keep_only
from lxdpy.host.intercept.calls import Arguments, Leave

BPF = {"x86_64": 321, "aarch64": 280}
LOAD, ATTACH, DETACH = 5, 8, 9  # BPF_PROG_…
DEVICE_PROGRAM, DEVICE_HOOK = 15, 6  # BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE
OVERRIDE, MULTI, REPLACE = 1, 2, 4  # BPF_F_…
STRICT_ALIGNMENT = 1
RIGHTS = 1 << CAP_BPF | 1 << CAP_NET_ADMIN

LONGEST = 4096  # bytes of an attribute, as the kernel takes them
INSTRUCTION = struct.Struct("=BBhi")
MOST = 1 << 16  # instructions; such programs have some hundred
LICENSE = 128  # bytes
LOG = 1 << 20  # bytes of the log of the kernel's checks
LOADING = struct.Struct("=IIQQIIQII16sII")
ATTACHING = struct.Struct("=IIIII")

CALL, WIDE = 0x85, 0x18  # opcodes: BPF_JMP | BPF_CALL, and BPF_LD | BPF_IMM | BPF_DW
HANDLE, EMPTY_PATH = 128, 0x1000  # MAX_HANDLE_SZ, AT_EMPTY_PATH
OWN = 1  # source register of a call within the program

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Loading(NamedTuple):
    """What is asked with BPF_PROG_LOAD."""

    kind: int
    length: int
    instructions: int
    license: int
    log_level: int
    log_size: int
    log: int
    version: int
    flags: int
    name: bytes
    interface: int
    hook: int


def bpf(caller: Caller, arguments: Arguments, task: Task) -> int:
    command, address, size = arguments[0], arguments[1], arguments[2] & 0xFFFFFFFF
    ways = {LOAD: _load, ATTACH: _attach, DETACH: _attach}
    if not task["devices"] or command not in ways or not 0 < size <= LONGEST:
        raise Leave
    if not (caller.has(CAP_BPF) or caller.has(CAP_SYS_ADMIN)):
        raise Leave
    attribute = caller.data(address, size)
    if len(attribute) != size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return ways[command](caller, command, attribute, task)


def loading(attribute: bytes) -> Loading:
    """Raises `Leave` for what is no program on devices, or asks for more than to be loaded."""
    known, rest = _padded(attribute, LOADING.size)
    found = Loading(*LOADING.unpack(known))
    if found.kind != DEVICE_PROGRAM or found.hook not in (0, DEVICE_HOOK):
        raise Leave
    if any(rest) or found.interface or found.flags & ~STRICT_ALIGNMENT:
        raise Leave
    if not 0 < found.length <= MOST:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    return found


def check(instructions: bytes) -> None:
    """Raises EPERM for a program that does more than to compute."""
    wide = False
    for code, registers, _, _ in INSTRUCTION.iter_unpack(instructions):
        if wide:
            wide = False  # the second half of a constant
            continue
        source = registers >> 4
        wide = code == WIDE
        calls = code & 0xF7 == CALL  # with a register's value, too
        if (wide and source) or (calls and (code != CALL or source != OWN)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _load(caller: Caller, _: int, attribute: bytes, task: Task) -> int:
    asked = loading(attribute)
    size = asked.length * INSTRUCTION.size
    program = caller.data(asked.instructions, size)
    if len(program) != size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    license = caller.data(asked.license, LICENSE) if asked.license else b""
    caller.check()
    check(program)
    log = ctypes.create_string_buffer(min(asked.log_size, LOG)) if asked.log_size and asked.log else None
    text, words = (
        ctypes.create_string_buffer(program, size),
        ctypes.create_string_buffer(license, LICENSE + 1),
    )
    ours = asked._replace(
        instructions=ctypes.addressof(text),
        license=ctypes.addressof(words) if asked.license else 0,
        log=ctypes.addressof(log) if log else 0,
        log_size=len(log) if log else asked.log_size,
    )
    join(caller.group("memory"))
    keep_only(RIGHTS)
    try:
        made = _bpf(LOAD, LOADING.pack(*ours))
    finally:
        if log and (said := log.value):
            caller.write(asked.log, said + b"\0")
    return caller.give(made)


def _attach(caller: Caller, command: int, attribute: bytes, task: Task) -> int:
    known, rest = _padded(attribute, ATTACHING.size)
    target, program, hook, flags, replaced = ATTACHING.unpack(known)
    if hook != DEVICE_HOOK or any(rest) or flags & ~(OVERRIDE | MULTI | REPLACE):
        raise Leave
    there = caller.take(target)
    caller.check()
    if not is_below(there, task["groups"].get("unified", "")):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    ours = caller.take(program)
    instead = caller.take(replaced) if flags & REPLACE else 0
    caller.check()
    keep_only(RIGHTS)
    _bpf(command, ATTACHING.pack(there, ours, hook, flags, instead))
    return 0


def is_below(handle: int, folder: str) -> bool:
    """Whether a descriptor stands for a control group that the container may arrange: one below its own.

    It may have been opened by another mount, so the kernel is asked for the same group in the host's.
    """
    if not folder:
        return False
    own = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.fstat(own).st_dev != os.fstat(handle).st_dev:
        return False
    named = struct.pack("=Ii", HANDLE, 0) + bytes(HANDLE)
    buffer, mount = ctypes.create_string_buffer(named, len(named)), ctypes.c_int()
    if _libc.name_to_handle_at(handle, b"", buffer, ctypes.byref(mount), EMPTY_PATH) != 0:
        return False
    found = _libc.open_by_handle_at(own, buffer, os.O_PATH | os.O_CLOEXEC)
    return found >= 0 and os.readlink(f"/proc/self/fd/{found}").startswith(f"{os.path.realpath(folder)}/")


def _padded(attribute: bytes, size: int) -> tuple[bytes, bytes]:
    """What is known of an attribute, and the rest of it."""
    return attribute[:size].ljust(size, b"\0"), attribute[size:]


def _bpf(command: int, attribute: bytes) -> int:
    result: int = _libc.syscall(BPF[os.uname().machine], command, attribute, len(attribute))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
