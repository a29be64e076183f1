"""VGG: blocks of 3x3 convolutions, each closed by a pooling that halves height and width.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
https://arxiv.org/abs/1409.1556, table 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vgg_lightning.base.errors import UserError, nearest

# (num_convs, out_channels) of each block: columns A, B, D and E of the paper's table 1.
VGG_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}

# Not of the paper: for images of 28 pixels, with most of the work where they are still large.
OWN_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg_small": ((2, 32), (2, 64), (2, 128)),
    "vgg_wide": ((2, 128), (2, 256), (3, 512)),
}


def vgg_block(
    num_convs: int,
    in_channels: int,
    out_channels: int,
    batch_norm: bool = False,
    norm_after_relu: bool = False,
    pool: bool = True,
) -> nn.Sequential:
    """Return one VGG block: `num_convs` 3x3 convolutions with ReLU, then a 2x2 max-pooling, unless `pool` is False.

    Maps (N, in_channels, H, W) to (N, out_channels, H // 2, W // 2). With `batch_norm`, each convolution
    loses its bias to a BatchNorm, which stands before the ReLU, or after it with `norm_after_relu`.
    """
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm))
        activation: list[nn.Module] = [nn.ReLU()]
        if batch_norm:
            activation.insert(1 if norm_after_relu else 0, nn.BatchNorm2d(out_channels))
        layers += activation
        in_channels = out_channels
    if pool:
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


Head = Literal["classic", "batchnorm", "gap"]


def classic_head(in_features: int, hidden_units: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return the paper's head: two hidden Linear layers, each with ReLU and dropout, then the logits."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, hidden_units),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_units, hidden_units),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_units, num_classes),
    )


def batchnorm_head(in_features: int, hidden_units: int, num_classes: int) -> nn.Sequential:
    """Return the classic head with BatchNorm1d before each ReLU instead of the dropout."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, hidden_units),
        nn.BatchNorm1d(hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, hidden_units),
        nn.BatchNorm1d(hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, num_classes),
    )


def gap_head(in_channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return a head without hidden layers: global average pooling, dropout, one Linear layer."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(in_channels, num_classes)
    )


class VGG(nn.Module):
    """A VGG: `blocks` of convolutions, then a `head` that turns the features into logits.

    Args:
        arch: (num_convs, out_channels) of each block.
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels; every pooling halves it.
        ratio: divides the channels of every block.
        hidden_units: width of the two hidden layers of the heads "classic" and "batchnorm".
        batch_norm: BatchNorm with every convolution.
        norm_after_relu: BatchNorm after the ReLU instead of before it.
        head: "classic" (Linear layers with dropout), "batchnorm" or "gap" (global average pooling).
        dropout: probability with which the head drops a feature; the head "batchnorm" has none.
        poolings: how many blocks end in a pooling, the first ones; 3 leave 3 x 3 of 28 pixels.

    Raises:
        UserError: if `ratio` does not divide the channels, the image is too small for the poolings, or
            `norm_after_relu` comes without `batch_norm`.
    """

    def __init__(
        self,
        arch: Sequence[tuple[int, int]],
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 224,
        ratio: int = 1,
        hidden_units: int = 4096,
        batch_norm: bool = False,
        norm_after_relu: bool = False,
        head: Head = "classic",
        dropout: float = 0.5,
        poolings: int = 5,
    ) -> None:
        super().__init__()
        poolings = min(poolings, len(arch))
        _check(arch, image_size, ratio, poolings)
        if norm_after_relu and not batch_norm:
            raise UserError("norm_after_relu places the BatchNorm: use it together with batch_norm")
        self.norm_after_relu = norm_after_relu
        channels = [in_channels, *(out_channels // ratio for _, out_channels in arch)]
        self.blocks = nn.Sequential(
            *(
                vgg_block(num_convs, channels[i], channels[i + 1], batch_norm, norm_after_relu, i < poolings)
                for i, (num_convs, _) in enumerate(arch)
            )
        )
        in_features = channels[-1] * (image_size // 2**poolings) ** 2
        heads: dict[Head, Callable[[], nn.Module]] = {
            "classic": lambda: classic_head(in_features, hidden_units, num_classes, dropout),
            "batchnorm": lambda: batchnorm_head(in_features, hidden_units, num_classes),
            "gap": lambda: gap_head(channels[-1], num_classes, dropout),
        }
        if head not in heads:
            raise UserError(f"head {head!r} is unknown{nearest(head, heads)}: use one of {', '.join(heads)}")
        self.head = heads[head]()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits


def _check(arch: Sequence[tuple[int, int]], image_size: int, ratio: int, poolings: int) -> None:
    smallest = 2**poolings
    if image_size < smallest:
        raise UserError(f"image_size {image_size} is too small: {poolings} poolings need at least {smallest}")
    narrowest = min(out_channels for _, out_channels in arch)
    if ratio < 1 or any(out_channels % ratio for _, out_channels in arch):
        fitting = ", ".join(str(r) for r in range(1, narrowest + 1) if not any(c % r for _, c in arch))
        raise UserError(f"ratio {ratio} does not divide the channels of the blocks: use one of {fitting}")


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
