"""All that this package uses of torch beyond its public interface, as seen to work in torch 2.15.

Each function says what the public interface lacks. tests/test_private.py holds each of them against the installed
version, so that the name of a failing test says what a new version has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def copy_each(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each tensor into its target: on a GPU all at once, where `Tensor.copy_` takes a kernel for each."""
    import torch

    torch._foreach_copy_(targets, sources)


def standard_gamma(shape: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from Gamma(shape, 1), one number for each of `shape`: torch.distributions takes no generator."""
    import torch

    drawn: Tensor = torch._standard_gamma(shape, generator=generator)
    return drawn


def mark_non_finite(tensors: list[Tensor], found: Tensor) -> None:
    """Set `found`, a float32 scalar, to 1 if a number of `tensors` is not finite: one kernel, and no wait for it.

    It is the check of automatic mixed precision, with a scale of one, which leaves the numbers as they are.

    Args:
        tensors: of one device and type.
        found: on the same device.
    """
    import torch

    torch._amp_foreach_non_finite_check_and_unscale_(tensors, found, torch.ones((), device=found.device))


def has_overflowed(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the scaler is about to skip a step, once it has unscaled the gradients: it tells only after it."""
    return any(bool(found) for found in scaler._found_inf_per_device(optimizer).values())


def skip_if(optimizer: torch.optim.Optimizer, found: Tensor) -> None:
    """Let a fused optimizer leave the weights alone where `found`, a float32 scalar on its device, is not 0.

    This is how GradScaler tells it; `step` has no argument for it.
    """
    optimizer.found_inf = found  # type: ignore[attr-defined]


def set_last_rates(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Let `get_last_lr`, and a checkpoint, have the optimizer's rates of now: `step` alone writes them."""
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
