"""glibc's allocator, told to keep the pages that bulk transfers reuse.

Reads of up to 256 KiB otherwise make glibc return and re-fault pages for each of them: up to three times
the CPU.
"""

from __future__ import annotations

import ctypes
import platform

# Parameter numbers of mallopt(3), malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

MMAP_THRESHOLD = 8 << 20  # no buffer of ours is larger, so none gets a mapping of its own
TRIM_THRESHOLD = (
    32 << 20
)  # free memory at the heap's top that is kept; bounds what is held back from the system
TOP_PAD = 1 << 20  # the heap grows by this much at a time


def tune() -> bool:
    """Apply the three limits; False where the C library is not glibc (nothing is changed there)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    wanted = ((_M_MMAP_THRESHOLD, MMAP_THRESHOLD), (_M_TRIM_THRESHOLD, TRIM_THRESHOLD), (_M_TOP_PAD, TOP_PAD))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)
