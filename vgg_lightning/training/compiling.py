"""torch.compile of the network alone, in place, so that the names of its weights stay as they are in a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import nn

from vgg_lightning.base.errors import UserError, nearest, option

# What `--model.compile` takes, and what it hands to torch.compile.
COMPILE_MODES: dict[str, dict[str, Any]] = {
    "none": {},
    "default": {"backend": "inductor"},  # fuses what lies between the convolutions
    "reduce-overhead": {"mode": "reduce-overhead"},  # and replays a step as one CUDA graph: for small networks
    "max-autotune": {"mode": "max-autotune"},  # and tries several kernels for each layer: minutes before the first step
    "aot_eager": {"backend": "aot_eager"},  # traces, but needs no C++ compiler and gains nothing: for finding faults
}

GRAPH_MODES = ("reduce-overhead", "max-autotune")  # whose next output is written over the last one


def check_compile(name: str) -> None:
    """Raise UserError if `name` is not a key of `COMPILE_MODES`."""
    if name not in COMPILE_MODES:
        raise UserError(
            f"compile {name!r} is unknown{nearest(name, COMPILE_MODES)}: "
            f"{option('model.compile')} takes {', '.join(COMPILE_MODES)}"
        )


def compile_network(network: nn.Module, name: str) -> None:
    """Let `network` be compiled at its first call: once for every shape of a batch, in training and in evaluation."""
    if name != "none":
        network.compile(dynamic=False, **COMPILE_MODES[name])
