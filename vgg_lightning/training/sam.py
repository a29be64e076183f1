"""Sharpness-aware minimization: the gradient of a step is taken at the worst point nearby.

Foret et al., https://arxiv.org/abs/2010.01412. It takes two passes over every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vgg_lightning.base.seeds import random_state, set_random_state

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class SharpnessAware:
    """Makes the closures of an optimizer take two passes; see `sharpness_aware`.

    Args:
        network: whose weights climb.
        rho: length of the way uphill, in the space of all weights; 0 leaves closures as they are.

    Attributes:
        again: whether the second pass over a batch is under way, in which nothing is counted.
    """

    def __init__(self, network: nn.Module, rho: float) -> None:
        self.network, self.rho = network, rho
        self.again = False

    def __call__(self, closure: Any, device: torch.device) -> Any:
        """Return the closure that an optimizer takes instead of `closure`.

        Args:
            closure: clears the gradients, computes the loss and its gradients, and returns the loss.
            device: on which dropout draws; both passes draw the same.
        """
        if not self.rho or closure is None:
            return closure
        drawn = random_state(device)

        def second() -> None:
            set_random_state(device, drawn)
            self.again = True
            try:
                closure()
            finally:
                self.again = False

        return sharpness_aware(self.network, closure, second, self.rho)


def sharpness_aware(
    network: nn.Module, closure: Callable[[], Any], again: Callable[[], Any], rho: float
) -> Callable[[], Any]:
    """Return a closure that leaves the gradient found `rho` uphill, and the weights as they were.

    Any optimizer can take it instead of `closure`, so there is none of its own, and no state to save.

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
