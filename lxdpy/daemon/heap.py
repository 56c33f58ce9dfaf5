"""C's allocator, told to give back what a large answer took.

When it frees a piece that had pages of its own, glibc takes the next of that size from the heap instead,
where what came to lie behind keeps it from being given back: a list of 1,000 instances is 3 MB, three times
over. It does not learn that from a threshold that is set. Threads' heaps of their own would keep as much.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGE = 1 << 20  # bytes of a piece that gets pages of its own; each read of a socket takes a quarter of it
FREE = 1 << 20  # bytes at the heap's end that are kept for the next
HEAPS = 2


def tidy() -> None:
    """For the whole process, from now on."""
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, FREE), (M_ARENA_MAX, HEAPS)):
        libc.mallopt(option, value)
