import subprocess
import sys

LOOK = """
import ctypes
from lxdpy.daemon import heap
heap.tidy()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for size in ({sizes}):
    piece = libc.malloc(size)
    head = ctypes.c_size_t.from_address(piece - ctypes.sizeof(ctypes.c_size_t)).value
    libc.free(piece)
    print(head >> 1 & 1)
"""
"""Whether glibc has marked it as mapped, in a process of its own: what was allocated before counts."""


def test_a_large_piece_has_pages_of_its_own_each_time_and_a_read_of_a_socket_has_none() -> None:
    script = LOOK.format(sizes="4 << 20, 4 << 20, 1 << 18")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "0"]
