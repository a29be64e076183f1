"""Randomness as a function of where a run stands, so that a resumed run draws what the unbroken one drew."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1


def derive_seed(*numbers: int) -> int:
    """Mix integers (seed, epoch, batch, rank...) into one seed; near inputs give unrelated seeds.

    The mixing is splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    https://doi.org/10.1145/2660193.2660195.
    """
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1  # 63 bits: what torch.manual_seed takes without a sign


def seed_device(device: torch.device, seed: int) -> None:
    """Seed what dropout on `device` draws from.

    `torch.manual_seed` seeds every device there might be, which costs 1 ms where CUDA is built in and absent.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def seed_all(seed: int, device: torch.device | None = None) -> None:
    """Seed Python's, NumPy's and torch's draws on the CPU, and those on `device`."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # all that it takes
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        seed_device(device, seed)
