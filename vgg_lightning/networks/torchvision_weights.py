"""Weights of torchvision's VGG, which are pretrained on ImageNet, for the networks of `vgg.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vgg_lightning.base.errors import UserError

if TYPE_CHECKING:
    from vgg_lightning.networks.vgg import VGG


def load_torchvision_weights(network: VGG, state_dict: dict[str, Tensor]) -> VGG:
    """Carry the state dict of torchvision's VGG of the same depth over into `network`, and return it.

    Works for `vgg11` to `vgg19` and for their `_bn` forms, pretrained or not. Torchvision keeps a bias in
    front of each BatchNorm; it is moved into the running mean, so the outputs in evaluation stay the same.

    Args:
        network: a network with the classic head and as many input channels and classes as the weights.
        state_dict: of torchvision's network: `torchvision.models.vgg16(weights="DEFAULT").state_dict()`.

    Raises:
        UserError: if the two networks do not have the same layers in the same order.
    """
    _load(network, _renamed(network, state_dict, norm_after_relu=network.norm_after_relu))
    return network


def is_of_torchvision(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of a VGG of torchvision, by their names."""
    return bool(state_dict) and all(re.fullmatch(r"(features|classifier)\.\d+\.\w+", name) for name in state_dict)


def fitting_torchvision_weights(network: VGG, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of the weights of torchvision's VGG of the same depth fits `network`, by the names in it.

    For grey images the filters of the first convolution are summed over the colours, which is what three equal
    channels would give. Of the head, the layers in front of the first one that does not fit are taken.

    Args:
        network: of the same depth, with or without BatchNorm as the weights; head, classes and image size may differ.
        state_dict: of torchvision's network.

    Raises:
        UserError: if the two do not have the same convolutions.
    """
    convolutions = {name: value for name, value in state_dict.items() if name.startswith("features.")}
    carried = _renamed(network.blocks, convolutions, "blocks.", network.norm_after_relu)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    first = next(iter(carried), "")
    if first in shapes and carried[first].ndim == 4 and shapes[first][1] == 1:
        carried[first] = carried[first].sum(dim=1, keepdim=True)
    linears = [f"head.{name}" for name, layer in network.head.named_children() if isinstance(layer, nn.Linear)]
    theirs = [name.removesuffix(".weight") for name in state_dict if re.fullmatch(r"classifier\.\d+\.weight", name)]
    for name, other in zip(linears, theirs, strict=False):
        found = {f"{name}.{kind}": state_dict[f"{other}.{kind}"] for kind in ("weight", "bias")}
        if any(value.shape != shapes[key] for key, value in found.items()):
            break
        carried |= found
    return {name: value for name, value in carried.items() if value.shape == shapes.get(name)}


def _renamed(
    network: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = "", norm_after_relu: bool = False
) -> dict[str, Tensor]:
    """Return the weights of torchvision's layers by the names of ours, which are as many and in the same order."""
    if norm_after_relu:
        raise UserError("torchvision's BatchNorm stands before the ReLU: use a network without norm_after_relu")
    ours = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)}
    theirs: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        path, name = key.rsplit(".", 1)
        theirs.setdefault(path, {})[name] = value
    if len(ours) != len(theirs):
        raise UserError(
            f"the weights have {len(theirs)} layers, the network has {len(ours)}: use the same depth and batch_norm"
        )
    carried: dict[str, Tensor] = {}
    bias: Tensor | None = None
    for (path, module), weights in zip(ours.items(), theirs.values(), strict=True):
        if isinstance(module, nn.Conv2d) != (weights["weight"].ndim == 4):
            raise UserError(f"the weights do not fit the network at {path}: use the same depth and batch_norm")
        if isinstance(module, nn.Conv2d) and module.bias is None:
            bias = weights.pop("bias", None)
        elif isinstance(module, nn.BatchNorm2d) and bias is not None and "running_mean" in weights:
            weights["running_mean"] = weights["running_mean"] - bias
            weights.setdefault("num_batches_tracked", torch.tensor(0))  # files from before 2018 lack it
        carried |= {f"{prefix}{path}.{name}": value for name, value in weights.items()}
    return carried


def _load(network: VGG, weights: dict[str, Tensor]) -> None:
    """Load all of `weights`, or nothing if one does not fit."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    for key in {**shapes, **given}:
        if shapes.get(key) != given.get(key):
            raise UserError(
                f"the weights do not fit the network at {key}, shape {given.get(key)} for {shapes.get(key)}: "
                "use the same in_channels, num_classes and batch_norm, and image_size 224"
            )
    network.load_state_dict(weights)
