"""Optimizers by name. To add one, give the table a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.training.muon import Muon

SETTINGS = ("momentum", "nesterov", "weight_decay", "lr_factor")  # of a group of parameters, beside its rate
OptimizerName = Literal["sgd", "adam", "adamw", "muon"]
ParameterGroups = list[dict[str, Any]]


def _sgd(
    groups: ParameterGroups, lr: float, momentum: float, nesterov: bool, fused: bool | None
) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=fused)


def _adam(
    groups: ParameterGroups, lr: float, momentum: float, nesterov: bool, fused: bool | None
) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=lr, fused=fused)


def _adamw(
    groups: ParameterGroups, lr: float, momentum: float, nesterov: bool, fused: bool | None
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, fused=fused)


def _muon(
    groups: ParameterGroups, lr: float, momentum: float, nesterov: bool, fused: bool | None
) -> torch.optim.Optimizer:
    return Muon(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)


OPTIMIZERS: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
}


def check_optimizer(name: str) -> None:
    """Raise UserError if `name` is not a key of `OPTIMIZERS`."""
    if name not in OPTIMIZERS:
        raise UserError(
            f"optimizer {name!r} is unknown{nearest(name, OPTIMIZERS)}: "
            f"{option('model.optimizer')} takes {', '.join(OPTIMIZERS)}"
        )


def build_optimizer(
    name: OptimizerName,
    network: nn.Module,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    fused: bool | None = None,
    bias_lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """Return an optimizer of the network's parameters.

    Weight decay acts on the weights of convolutions and Linear layers only: pulling biases and the scales of
    BatchNorm to zero costs accuracy and regularises nothing.

    Args:
        name: a key of `OPTIMIZERS`.
        network: whose parameters to optimize.
        lr: learning rate.
        momentum: of SGD and Muon; the others keep their own.
        nesterov: Nesterov's momentum for SGD and Muon.
        weight_decay: strength of the decay.
        fused: one kernel for all parameters, which can skip a step without waiting for the device.
        bias_lr_factor: times `lr` is the learning rate of biases and BatchNorm.

    Raises:
        UserError: if the name is unknown.
    """
    check_optimizer(name)
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: ParameterGroups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if bias_lr_factor != 1:
        groups[1] |= {"lr": lr * bias_lr_factor, "lr_factor": bias_lr_factor}
    return OPTIMIZERS[name]([group for group in groups if group["params"]], lr, momentum, nesterov, fused)


def take_settings(optimizer: torch.optim.Optimizer, fresh: torch.optim.Optimizer) -> None:
    """Let an optimizer that a checkpoint has restored continue with the settings of a fresh one; its state stays."""
    for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        for name in SETTINGS:
            group.pop(name, None)
            if name in new:
                group[name] = new[name]
