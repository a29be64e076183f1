"""Random seeds as a function of the position in a run, so that a resumed run draws the same numbers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from vgg_lightning.base.errors import UserError

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


def place_of(state: Any) -> tuple[int, int]:
    """Return epoch and position in the state of a loader. Raises UserError if it does not say them."""
    found: list[Any] = [state.get(name) for name in ("epoch", "position")] if isinstance(state, dict) else [None]
    if not all(type(number) is int and 0 <= number < 2**53 for number in found):
        raise UserError("the checkpoint is refused: it does not say where the training loader stands")
    return found[0], found[1]


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


def random_state(device: torch.device) -> torch.Tensor:
    """Return the state of the generator that dropout on `device` draws from."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def set_random_state(device: torch.device, state: torch.Tensor) -> None:
    """Let dropout on `device` draw again what it drew after `random_state` returned `state`."""
    import torch

    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def seed_all(seed: int, device: torch.device | None = None) -> None:
    """Seed Python's, NumPy's and torch's draws on the CPU, and those on `device`."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # all that it takes
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        seed_device(device, seed)
