"""The helper's child that renders templates: it is nobody, may start nothing, and is soon out of time."""

import ctypes
import json
import os
import resource
from collections.abc import Mapping, Sequence
from typing import Any

NOBODY = 65534
CPU_FOR = 2  # seconds; a usual template takes a millisecond, and the modules of Jinja2 60 to be read
MEMORY = 1 << 30  # bytes of addresses; Python itself takes 200 MiB of them
PR_SET_NO_NEW_PRIVS = 38


def render(ask: Mapping[str, Any], fds: Sequence[int]) -> None:
    """In the helper's child: what `fds[0]` asks for, to `fds[1]`. Changes the process for good."""
    from lxdpy.host.render import render_all  # few starts need it, and it takes 60 ms

    with open(fds[0], "rb", closefd=False) as file:
        os.lseek(fds[0], 0, os.SEEK_SET)
        jobs = json.loads(file.read())
    for kind, most in (
        (resource.RLIMIT_CPU, CPU_FOR),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (most, most))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    answer = json.dumps(render_all(jobs)).encode()
    with open(fds[1], "wb", closefd=False) as file:
        file.write(answer)
