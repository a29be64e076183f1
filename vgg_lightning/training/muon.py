"""Muon: steps whose directions are orthogonal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Of the polynomial that is iterated: it brings singular values from 0.01..1 close to 1 in few steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


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
