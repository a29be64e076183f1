"""How the C library gives memory to tensors on a CPU."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4
ROOM_TO_KEEP = 3  # times what a step needs at least: a process that keeps memory was seen to hold twice as much
STEP = 64 * 2**20  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Let this process keep the memory that tensors free, and return whether the C library obeys.

    glibc gives large blocks back to the kernel at once. Every step of a training then asks for the same activations
    anew, and the kernel fills each page with zeros first: a fifth of the time of VGG-11 at 96 pixels. Kept blocks are
    used again as they are. The process stays as large as it once was; no result changes.

    Variables of the environment that set the same (MALLOC_TRIM_THRESHOLD_ and the like) are left as they are.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    # No mapping of its own for a large block, none given back at the heap's end, and growth in large steps.
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_TOP_PAD, STEP)])
