"""From a call to its answer: what is done for which, by a child of ours, for so long at most."""

import contextlib
import errno
import json
import os
import platform
import select
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

from lxdpy.host.companion.process import Task
from lxdpy.host.intercept import bpf, calls, mounting, scheduling, sysinfo
from lxdpy.host.intercept.caller import Caller
from lxdpy.host.intercept.message import LEFT, Answer, Call

WITHIN = 20.0  # seconds for a call; LXC waits for 30, and would take a later answer for the next one's
RESULT = struct.Struct("qiI")

Work = Callable[[Caller, tuple[int, ...], Task], int]


class Way(NamedTuple):
    """What is done for a call, and the switch that must be on: the key without what all begin with."""

    switch: str
    work: Work


MOUNT = Way("mount", mounting.mount)
MKNOD, MKNODAT = Way("mknod", calls.mknod), Way("mknod", calls.mknodat)
SETXATTR, LSETXATTR, FSETXATTR = (
    Way("setxattr", work) for work in (calls.setxattr, calls.lsetxattr, calls.fsetxattr)
)
SCHEDULER = Way("sched_setscheduler", scheduling.set_scheduler)
BPF = Way("bpf", bpf.bpf)
SYSINFO = Way("sysinfo", sysinfo.sysinfo)
WAYS: dict[str, tuple[int, dict[int, Way]]] = {
    "x86_64": (
        0xC000003E,
        {
            165: MOUNT,
            133: MKNOD,
            259: MKNODAT,
            188: SETXATTR,
            189: LSETXATTR,
            190: FSETXATTR,
            144: SCHEDULER,
            99: SYSINFO,
            321: BPF,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            40: MOUNT,
            33: MKNODAT,
            5: SETXATTR,
            6: LSETXATTR,
            7: FSETXATTR,
            119: SCHEDULER,
            179: SYSINFO,
            280: BPF,
        },
    ),
}
"""By machine: AUDIT_ARCH_…, and what is done by number."""


def answer(task: Task, call: Call, fds: list[int]) -> Answer:
    """`fds`: of the caller's folder in /proc, of its memory, and of the kernel's notifications."""
    ours, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.write(tell, RESULT.pack(*_made(task, call, fds)))
        finally:
            os._exit(0)
    os.close(tell)
    in_time = bool(select.select([ours], [], [], WITHIN)[0])
    said = os.read(ours, RESULT.size) if in_time else b""
    os.close(ours)
    if not said:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # and those that it started
    os.waitpid(child, 0)
    if said:
        return Answer(*RESULT.unpack(said))
    return Answer(errno=errno.EPERM if in_time else errno.ETIMEDOUT)


def _made(task: Task, call: Call, fds: list[int]) -> Answer:
    """What became of a call; in a process that ends after it."""
    architecture, ways = WAYS.get(platform.machine(), (0, {}))
    way = ways.get(call.number)
    if call.architecture != architecture or way is None:
        return LEFT
    with open(task["rules"]) as file:
        rules = json.load(file)
    if way.switch not in rules["switches"]:
        return LEFT
    try:
        caller = Caller(call, *fds)
        return Answer(value=way.work(caller, call.arguments, task | rules))
    except calls.Leave:
        return LEFT
    except OSError as error:
        return Answer(errno=error.errno or errno.EPERM)
