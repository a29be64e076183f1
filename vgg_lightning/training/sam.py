"""Sharpness-aware minimization: the gradient of a step is that of the worst place near by.

Foret et al., https://arxiv.org/abs/2010.01412. It takes two passes over every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def sharpness_aware(
    network: nn.Module, closure: Callable[[], Any], again: Callable[[], Any], rho: float
) -> Callable[[], Any]:
    """Return a closure that leaves the gradient found `rho` uphill, and the weights as they were.

    Any optimizer can take it in the place of `closure`, so there is none of its own, and no state to save.

    Args:
        network: whose weights climb.
        closure: clears the gradients, computes the loss and its gradients, and returns the loss.
        again: does so for the same batch with the same dropout, and counts nothing a second time.
        rho: length of the way uphill.
    """

    def both() -> Any:
        loss = closure()
        parameters = [p for p in network.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in parameters]
        _climb(parameters, rho)
        with statistics_kept(network):
            again()
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        return loss

    return both


@torch.no_grad()
def _climb(parameters: list[nn.Parameter], rho: float) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    scale = rho / torch.nn.utils.get_total_norm(gradients).clamp_min(1e-12)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.add_(gradient * scale)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of BatchNorm as they are, though it trains."""
    layers = [layer for layer in network.modules() if isinstance(layer, BATCH_NORMS)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
