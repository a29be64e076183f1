"""Learning-rate schedules by name: each a pure function of the progress of the run, so resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.torch_private import set_last_rates


def constant(progress: float) -> float:
    """Keep the rate."""
    return 1.0


def cosine(progress: float) -> float:
    """Fall to zero along half a cosine: Loshchilov and Hutter, https://arxiv.org/abs/1608.03983."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """Fall to zero along a straight line."""
    return 1.0 - progress


ScheduleName = Literal["constant", "cosine", "linear"]
SCHEDULES: dict[ScheduleName, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "linear": linear}


def check_schedule(name: str) -> None:
    """Raise UserError if `name` is not a key of `SCHEDULES`."""
    if name not in SCHEDULES:
        raise UserError(
            f"schedule {name!r} is unknown{nearest(name, SCHEDULES)}: "
            f"{option('model.schedule')} takes {', '.join(SCHEDULES)}"
        )


def build_schedule(
    name: ScheduleName, optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int, end: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a scheduler that climbs linearly for `warmup_steps`, then follows the named schedule.

    Args:
        name: a key of `SCHEDULES`.
        optimizer: whose rate to set; its rate is the peak.
        warmup_steps: optimizer steps of the climb.
        total_steps: optimizer steps of the whole run.
        end: share of the peak at which the schedule ends, instead of zero.
    """
    check_schedule(name)
    schedule = SCHEDULES[name]

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return end + (1 - end) * schedule(min(progress, 1.0))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def restart_schedule(scheduler: torch.optim.lr_scheduler.LambdaLR, lr: float) -> None:
    """Set the learning rates that the schedule has at its current step with the peak `lr`, instead of restored ones."""
    scheduler.base_lrs = [lr * group.get("lr_factor", 1.0) for group in scheduler.optimizer.param_groups]
    for group, base, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["initial_lr"] = base
        group["lr"] = base * factor(scheduler.last_epoch)
    set_last_rates(scheduler)
