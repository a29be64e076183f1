"""This machine: its memory, its cores, and what its operating system has or lacks.

What Linux has and another system lacks is used here alone: the rest of the package calls what stands here, which does
without where it must. macOS and Windows were not measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

try:
    import fcntl
    import resource

    POSIX = True
except ImportError:  # Windows
    POSIX = False

if TYPE_CHECKING:
    import torch

from vgg_lightning.base.errors import option

_CGROUP = Path("/sys/fs/cgroup")  # what a container may use
# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4
ROOM_TO_KEEP = 3  # times what a step needs at least: a process that keeps memory was seen to hold twice as much
STEP = 64 * 2**20  # bytes by which the heap grows
UNTOLD = sys.maxsize  # bytes of free memory where the system does not tell
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
# Flags of os.open: do not wait for a pipe, take no terminal for one's own, follow no link, leave line ends as they are.
O_NONBLOCK, O_NOCTTY, O_NOFOLLOW, O_CLOEXEC, O_BINARY = (
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
)
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


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
    """Return the bytes of memory that a run may take: free ones of the machine, or of its container; else `UNTOLD`."""
    free = [_number(line.split()[1]) * 1024 for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvail")]
    total = UNTOLD
    with contextlib.suppress(AttributeError, ValueError, OSError):
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
    """Return the most bytes that this process has held: on the GPU if that is where the network is; 0 if untold."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):
        # On Linux ru_maxrss can start at the peak of the process that started this one; VmHWM does not.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    if not POSIX:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def usable_cores() -> int:
    """Return the number of cores that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """Return how many programs wanted a core in the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def lock_file(file: IO[str] | int, exclusive: bool) -> None:
    """Lock an open file until it is closed, or its process ends in whatever way.

    Raises:
        BlockingIOError: if others hold it.
        OSError: if the system, or the disk that the file is on, has no such locks.
    """
    if not POSIX:
        raise OSError(0, "this system has no locks of files")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)


def hold(file: IO[str], exclusive: bool) -> bool:
    """Return whether an open file could be locked, as `lock_file` does."""
    try:
        lock_file(file, exclusive)
    except OSError:
        return False
    return True


def lives(process: int) -> bool:
    """Return whether there is a process of this number; yes, where the system cannot be asked."""
    if sys.platform == "win32":  # where os.kill ends it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def after_fork_in_child(call: Callable[[], None]) -> None:
    """Let `call` be called in each process that this one forks, where the system forks any."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def send_self(signum: int) -> None:
    """Send a signal to this process, from any of its threads."""
    if sys.platform == "win32":  # where os.kill ends the process on the spot
        signal.raise_signal(signum)
    else:
        os.kill(os.getpid(), signum)


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends. Linux only."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # 1: PR_SET_PDEATHSIG


def own_group() -> None:
    """Let Ctrl-C in the terminal not reach this process, where the system has groups of processes."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def widest_float(device: torch.device) -> torch.dtype:
    """Return the type of the most exact numbers that a device has: the GPU of a Mac has none of 64 bits."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


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
