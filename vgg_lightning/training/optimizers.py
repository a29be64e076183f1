"""Optimizers by name. To add one, give the table a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgg_lightning.base.errors import UserError, nearest, option

# Of the polynomial that is iterated: it brings singular values from 0.01..1 close to 1 in few steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SETTINGS = ("momentum", "nesterov", "weight_decay", "lr_factor")  # of a group of parameters, beside its rate
OptimizerName = Literal["sgd", "adam", "adamw", "muon"]
ParameterGroups = list[dict[str, Any]]


class Muon(torch.optim.Optimizer):
    """Muon for convolutions and Linear layers, SGD for biases and normalisation, in one optimizer.

    Muon makes the step of a layer's weights orthogonal, so that all of their directions are learnt at one pace: Jordan
    et al., https://kellerjordan.github.io/posts/muon/. torch.optim.Muon takes matrices only, and computes in bfloat16,
    which is slow where the processor has none.

    A filter bank (out, in, height, width) is a matrix (out, in * height * width).

    Args:
        groups: of parameters.
        lr: learning rate.
        momentum: of both.
        nesterov: Nesterov's momentum for both.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, and return what `closure` returns, which computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
        buffer.mul_(group["momentum"]).add_(gradient)
        direction = gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        if parameter.ndim > 1:
            direction = orthogonal(direction.flatten(1)).view(parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Return U @ V.T of the decomposition U @ S @ V.T of a matrix (rows, columns), roughly, as a step to take.

    Singular values come out between about 0.7 and 1.2, times sqrt(rows / columns) if that is above 1.
    """
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    step: Tensor = x.T if rows > columns else x
    return step.mul(max(1.0, rows / columns) ** 0.5)


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
