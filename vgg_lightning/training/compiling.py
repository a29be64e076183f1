"""Makes a built network train faster, in place: names and bits of its weights do not change.

`pool_first` is done to every network, torch.compile on request.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgg_lightning.base.errors import UserError, nearest, option

CompileMode = Literal["none", "default", "reduce-overhead", "max-autotune", "aot_eager"]

# What torch.compile is given for each mode.
COMPILE_MODES: dict[CompileMode, dict[str, Any]] = {
    "none": {},
    "default": {"backend": "inductor"},  # fuses what lies between the convolutions
    "reduce-overhead": {"mode": "reduce-overhead"},  # and replays a step as one CUDA graph: for small networks
    "max-autotune": {"mode": "max-autotune"},  # and tries several kernels for each layer: minutes before the first step
    "aot_eager": {"backend": "aot_eager"},  # traces, but needs no C++ compiler and gains nothing: for finding faults
}


def layout(channels_last: bool) -> torch.memory_format:
    """Return the memory layout of images and weights."""
    return torch.channels_last if channels_last else torch.contiguous_format


GRAPH_MODES = ("reduce-overhead", "max-autotune")  # whose next output is written over the last one


def kept(logits: Tensor, name: CompileMode) -> Tensor:
    """Return logits that the next call of a network, compiled like this, does not write over."""
    return logits.clone() if name in GRAPH_MODES else logits


def check_compile(name: str) -> None:
    """Raise UserError if `name` is not a key of `COMPILE_MODES`."""
    if name not in COMPILE_MODES:
        raise UserError(
            f"compile {name!r} is unknown{nearest(name, COMPILE_MODES)}: "
            f"{option('model.compile')} takes {', '.join(COMPILE_MODES)}"
        )


def compile_network(network: nn.Module, name: CompileMode) -> None:
    """Let `network` be compiled at its first call: once for every shape of a batch, in training and in evaluation."""
    if name != "none":
        network.compile(dynamic=False, **COMPILE_MODES[name])


class PoolFirst(nn.Sequential):
    """An `nn.Sequential` that, in training, computes a max-pooling before the ReLU in front of it.

    A ReLU never exchanges the order of two numbers, so the largest of four ReLUs is the ReLU of the largest, at a
    quarter of the work, and the gradient reaches the same pixel. In evaluation, and in what prints or draws the
    network, the layers keep the order of the paper.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers make of `x`."""
        layers = list(self)
        if self.training:
            for i, (first, second) in enumerate(pairwise(layers)):
                if _commute(first, second):
                    layers[i : i + 2] = second, first
        for layer in layers:
            x = layer(x)
        return x


def pool_first(network: nn.Module) -> nn.Module:
    """Let each plain `nn.Sequential` of `network` with a ReLU in front of a max-pooling be a `PoolFirst`; return it."""
    for module in network.modules():
        if type(module) is nn.Sequential and any(_commute(*pair) for pair in pairwise(module)):
            module.__class__ = PoolFirst
    return network


def _commute(first: nn.Module, second: nn.Module) -> bool:
    return type(first) is nn.ReLU and type(second) is nn.MaxPool2d and not second.return_indices
