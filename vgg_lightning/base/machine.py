"""The memory of this machine and of this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

from vgg_lightning.base.errors import option

_CGROUP = Path("/sys/fs/cgroup")  # what a container may use
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


def free_memory() -> int:
    """Return the bytes of memory that a run may take: free ones of the machine, or of its container."""
    free = [_number(line.split()[1]) * 1024 for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvail")]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = (_number("".join(_lines(_CGROUP / name))) for name in ("memory.max", "memory.current"))
    cached = sum(_number(x.split()[1]) for x in _lines(_CGROUP / "memory.stat") if x.startswith("file "))
    return min([total, *free, *([limit - used + cached] if limit else [])])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def peak_memory(device: str) -> int:
    """Return the most bytes that this process has held: on the GPU if that is where the network is."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):
        # On Linux ru_maxrss can start at the peak of the process that started this one; VmHWM does not.
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def no_memory_left() -> str:
    """Return what to say where memory ran out."""
    return f"out of memory: lower {option('data.batch_size')} or {option('data.image_size')}"


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: torch on the CPU tells so in the text alone."""
    texts = (
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "Storage size calculation overflowed",
    )
    by_name = type(error).__name__ == "OutOfMemoryError"  # torch's, which may not be imported
    return (
        isinstance(error, MemoryError)
        or by_name
        or (isinstance(error, RuntimeError) and any(text.lower() in str(error).lower() for text in texts))
    )
