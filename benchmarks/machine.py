"""On what a row was measured: the processor's model, and whether anything else was running."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import torch

QUIET_SHARE = 0.05  # of the processor that other work may take in a row that counts as quiet


def processor() -> str:
    """Return the model of the processor, such as "AMD EPYC"; never the name of the machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def instruction_set() -> str:
    """Return the widest vectors of torch on this CPU, and what there is for bfloat16, such as "AVX512 avx512_bf16"."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    has = [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *has])


class OtherWork:
    """Watches from its making on what other processes take of the processors."""

    def __init__(self) -> None:
        self._begin = _clocks()

    def quiet(self) -> str:
        """Return "yes" or "no", or "unknown" where the system does not say."""
        end = _clocks()
        if self._begin is None or end is None:
            return "unknown"
        busy, idle, own = (b - a for a, b in zip(self._begin, end, strict=True))
        return "yes" if busy - own < QUIET_SHARE * max(busy + idle, 1e-9) else "no"


def _clocks() -> tuple[float, float, float] | None:
    """Return seconds since the start: all processors busy, all idle, busy for this process and its ended children."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").split("\n")[0].split()[1:]]
    except (OSError, ValueError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]  # waiting for a disk is idle too
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return (sum(fields[:8]) - idle) / tick, idle / tick, own
