"""Initial weights: one table from a name to a function that initialises a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from vgg_lightning.base.errors import UserError, nearest


def _default(layer: nn.Module) -> None:
    """Leave what torch drew when the layer was made: uniform within 1 / sqrt(fan_in)."""


def _xavier(layer: nn.Module) -> None:
    """Glorot and Bengio 2010, which keeps the variance of signals and gradients; biases stay as drawn."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)


def _kaiming(layer: nn.Module) -> None:
    """He et al. 2015, made for ReLU; as torchvision's VGG: normal(0, .01) in Linear layers, zero biases."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _dirac(layer: nn.Module) -> None:
    """Let the first filters of each convolution hand their input channel on; the others stay as drawn."""
    if isinstance(layer, nn.Conv2d):
        nn.init.dirac_(layer.weight[: layer.in_channels])


InitScheme = Literal["default", "xavier", "kaiming", "dirac"]
INIT_SCHEMES: dict[InitScheme, Callable[[nn.Module], None]] = {
    "default": _default,
    "xavier": _xavier,
    "kaiming": _kaiming,
    "dirac": _dirac,
}


@torch.no_grad()
def initialize(network: nn.Module, scheme: InitScheme) -> nn.Module:
    """Give the convolutions and Linear layers of `network` new weights in place, and return it.

    Args:
        network: any module; normalisation layers stay as they are.
        scheme: a key of `INIT_SCHEMES`; "default" changes nothing.

    Raises:
        UserError: if the scheme is unknown.
    """
    if scheme not in INIT_SCHEMES:
        raise UserError(
            f"init {scheme!r} is unknown{nearest(scheme, INIT_SCHEMES)}: use one of {', '.join(INIT_SCHEMES)}"
        )
    return network.apply(INIT_SCHEMES[scheme])
