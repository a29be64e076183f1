"""Whether a network can fit into memory, found without building it: options may ask for more than any machine has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from vgg_lightning.errors import UserError

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use


def machine_memory() -> int:
    """Return the bytes of memory that this process may use at most: of the machine, or of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.is_file() else ""
    return min(total, int(limit)) if limit.isdigit() else total


def check_weights_fit(build: Callable[[], nn.Module], picture_bytes: int) -> None:
    """Raise UserError if the weights of a network, or two pictures of its input, are larger than the memory.

    Args:
        build: makes the network; called on the device "meta", where tensors have shapes and no content.
        picture_bytes: of one picture of its input.
    """
    try:
        needed = 2 * picture_bytes + _bytes(_skeleton(build))
    except (RuntimeError, OverflowError, TypeError) as error:  # shapes that exceed 64 bits
        raise UserError(
            "the network is too large to be built: lower --data.image_size, --model.hidden_units or "
            "--model.num_classes, or raise --model.ratio"
        ) from error
    _check(needed, "its weights", "lower --data.image_size or --model.hidden_units, or raise --model.ratio")


def check_training_fits(build: Callable[[], nn.Module], picture: torch.Size, batch_size: int) -> None:
    """Raise UserError if training cannot fit: weights, gradients, and what the backward pass keeps of a batch.

    It counts the outputs of convolutions and Linear layers in 16 bits, less than any run needs, so that nothing is
    refused that could work.

    Args:
        build: makes the network.
        picture: (in_channels, image_size, image_size).
        batch_size: pictures in a batch.
    """
    network = _skeleton(build).eval()
    kept = picture.numel()

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal kept
        kept += output.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(torch.empty(1, *picture, device="meta"))
    remedy = "lower --data.batch_size or --data.image_size, or raise --model.ratio"
    _check(2 * _bytes(network) + 2 * kept * batch_size, f"training on batches of {batch_size}", remedy)


def _skeleton(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _check(needed: int, what: str, remedy: str) -> None:
    if needed > machine_memory():
        raise UserError(
            f"{what} would take at least {needed / 1e9:,.0f} GB, this machine has {machine_memory() / 1e9:,.0f} GB: "
            f"{remedy}"
        )
