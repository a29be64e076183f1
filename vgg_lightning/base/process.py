"""Rank, world size and launcher of this process. Loads no torch, since errors and signals use it early."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.machine import end_with_parent

PARENT = "VGG_LIGHTNING_PARENT"  # set in processes that a run has started: the number of the one that did
SHARED = "VGG_LIGHTNING_RUN_FOLDER"  # where the first process of a run tells them where it writes
_OWN = (PARENT, SHARED, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH")


class Seat(NamedTuple):
    """The place of a process among those of its run.

    Attributes:
        rank: its number, 0 for the one that writes and speaks.
        local_rank: its number among those of its machine.
        world_size: how many there are, 1 before the first process has started the others.
        local_size: how many of them are on its machine.
        launcher: what started them all at once: "torchrun", "slurm", or "" where Lightning starts them.
    """

    rank: int
    local_rank: int
    world_size: int
    local_size: int
    launcher: str


def seat() -> Seat:
    """Return the place of this process, as its environment tells it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, local_rank, size, local = map(_number, ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return Seat(rank, local_rank, size, local, "torchrun")
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        size = _number("SLURM_NTASKS")
        local = _number("SLURM_NTASKS_PER_NODE", size // _number("SLURM_NNODES", 1))
        return Seat(_number("SLURM_PROCID", 0), _number("SLURM_LOCALID", 0), size, local, "slurm")
    size, local_rank = _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    return Seat(local_rank, local_rank, size, size, "")


def is_child() -> bool:
    """Return whether another process of the run has started this one."""
    return PARENT in os.environ


def follow_parent() -> None:
    """Let a process that a run has started end with the one that started it, whatever ends that. Linux only."""
    if is_child() and sys.platform == "linux":
        end_with_parent()
        if os.getppid() != int(os.environ[PARENT]):
            os._exit(1)  # it has ended already


@contextmanager
def own_environment() -> Iterator[None]:
    """Leave the environment as it was found: a second run of the same program starts its processes anew."""
    before = {name: os.environ.get(name) for name in _OWN}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "")
    if text.isdigit():
        return int(text)
    if text and default is None:
        raise UserError(f"{name} is {text!r} in the environment, which is not a number: start the run with torchrun")
    return default or 0
