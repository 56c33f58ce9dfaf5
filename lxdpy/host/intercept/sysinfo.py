"""`sysinfo`, answered with the container's own: memory and swap of its control group, threads, its age.

As lxcfs shows them in /proc: what files are cached in is used, and nothing is told as buffers apart, which
programs would take away twice. The load, and what no control group counts, is the host's.
"""

import ctypes
import errno
import os
import struct
import time
from collections.abc import Mapping

from lxdpy.host.companion.process import Task, born
from lxdpy.host.intercept.caller import Caller

INFO = struct.Struct("@q3Q6QHH4x2QI4x")
"""struct sysinfo on 64 bits: uptime, loads, memory (total, free, shared, buffers), swap (total, free),
threads, padding, high memory (total, free), bytes of a unit."""
MOST = 0xFFFF  # threads that fit

_libc = ctypes.CDLL(None, use_errno=True)


def sysinfo(caller: Caller, arguments: tuple[int, ...], task: Task) -> int:
    host = ctypes.create_string_buffer(INFO.size)
    if _libc.sysinfo(host) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if not arguments[0]:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - born(caller.init) / os.sysconf("SC_CLK_TCK")
    caller.write(arguments[0], told(host.raw, task["groups"], age))
    return 0


def told(host: bytes, groups: Mapping[str, str], age: float) -> bytes:
    """What the host says of itself, made the container's; `groups`: folders by controller, `age`: seconds."""
    _, *loads, total, free, shared, buffers, swap, swap_free, threads, _, _, _, unit = INFO.unpack(host)
    memory = [unit * value for value in (total, free, shared, buffers)]
    swaps = [unit * value for value in (swap, swap_free)]
    if folder := groups.get("memory"):
        memory, swaps = _memory(folder, memory[0], swaps)
    if folder := groups.get("pids"):
        threads = _number(folder, "pids.current")
    return INFO.pack(max(0, int(age)), *loads, *memory, *swaps, min(MOST, threads), 0, 0, 0, 1)


def _memory(folder: str, total: int, swaps: list[int]) -> tuple[list[int], list[int]]:
    stat = _stat(folder)
    if os.path.exists(f"{folder}/memory.usage_in_bytes"):
        used, shared = _number(folder, "memory.usage_in_bytes"), stat.get("total_shmem", 0)
        limit = stat.get("hierarchical_memory_limit", total)
        found = _legacy_swap(folder, stat, limit, used, swaps)
    else:
        used, shared = _number(folder, "memory.current"), stat.get("shmem", 0)
        limit = _least(folder, "memory.max")
        most = min(swaps[0], _least(folder, "memory.swap.max"))
        found = [most, max(0, most - _number(folder, "memory.swap.current"))]
    total = min(total, limit)
    return [total, max(0, total - used), shared, 0], found


def _legacy_swap(folder: str, stat: Mapping[str, int], limit: int, used: int, swaps: list[int]) -> list[int]:
    """Version 1 limits memory and swap together; the host's, where it does not count swap."""
    if "hierarchical_memsw_limit" not in stat:
        return swaps
    most = min(swaps[0], max(0, stat["hierarchical_memsw_limit"] - limit))
    return [most, max(0, most - max(0, _number(folder, "memory.memsw.usage_in_bytes") - used))]


def _least(folder: str, file: str) -> int:
    """The strictest limit of a group and of those above it."""
    least = 1 << 63
    while os.path.exists(path := f"{folder}/{file}"):
        with open(path) as text:
            word = text.read().strip()
        least = min(least, int(word) if word.isdigit() else least)
        folder = os.path.dirname(folder)
    return least


def _stat(folder: str) -> dict[str, int]:
    with open(f"{folder}/memory.stat") as file:
        return {words[0]: int(words[1]) for line in file if len(words := line.split()) == 2}


def _number(folder: str, file: str) -> int:
    """0 where it is not counted."""
    try:
        with open(f"{folder}/{file}") as text:
            return int(text.read())
    except FileNotFoundError:
        return 0
