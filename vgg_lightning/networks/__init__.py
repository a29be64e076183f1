"""The networks: one table from a name to a builder. Every builder returns a plain `nn.Module`.

To add one: write a file with a class that takes `in_channels`, `num_classes` and `image_size` (and options
of its own, all plain values), and give it a row here.

Imports `base` and torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.options import BELOW_ONE, in_range
from vgg_lightning.networks.alexnet import AlexNet
from vgg_lightning.networks.batch_norm import BatchNorm
from vgg_lightning.networks.densenet import DenseNet
from vgg_lightning.networks.googlenet import GoogLeNet
from vgg_lightning.networks.init import INIT_SCHEMES, InitScheme, initialize
from vgg_lightning.networks.lenet import LeNet
from vgg_lightning.networks.nin import NiN
from vgg_lightning.networks.resnet import ResNet18
from vgg_lightning.networks.vgg import OWN_BLOCKS, VGG, VGG_BLOCKS, Head, load_torchvision_weights
from vgg_lightning.networks.whitened_vgg import DeepWhitenedVGG, WhitenedVGG, WhiteningConv

__all__ = [
    "DROPOUT",
    "INIT_SCHEMES",
    "NETWORKS",
    "Head",
    "InitScheme",
    "build_network",
    "initialize",
    "is_whitened",
    "load_torchvision_weights",
    "network_options",
    "skeleton",
]

DROPOUT = BELOW_ONE  # of every network; at 1 nothing would be left
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(VGG, arch) for name, arch in {**VGG_BLOCKS, **OWN_BLOCKS}.items()},
    "whitened_vgg": WhitenedVGG,
    "deep_whitened_vgg": DeepWhitenedVGG,
    "alexnet": AlexNet,
    "nin": NiN,
    "googlenet": GoogLeNet,
    "lenet": partial(LeNet, (nn.BatchNorm2d, nn.BatchNorm1d)),
    "lenet_scratch": partial(LeNet, (BatchNorm, BatchNorm)),
    "resnet18": ResNet18,
    "densenet": DenseNet,
}


def network_options(name: str) -> dict[str, bool | int | float | str]:
    """Return the options of the network `name` with their defaults, `in_channels` and the like included.

    Raises:
        UserError: if the name is unknown.
    """
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is unknown{nearest(name, NETWORKS)}: use one of {', '.join(NETWORKS)}")
    return {option: p.default for option, p in inspect.signature(NETWORKS[name]).parameters.items()}


def build_network(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 224,
    **options: object,
) -> nn.Module:
    """Return the network `name`, which maps images to logits (N, num_classes).

    The images have the shape (N, in_channels, image_size, image_size).

    Args:
        name: a key of `NETWORKS`, such as "vgg11".
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels.
        options: what else the network's class takes, such as `ratio` and `batch_norm` of a VGG.

    Raises:
        UserError: if the name or an option is unknown, or if the options do not fit together.
    """
    known = network_options(name)
    options = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size, **options}
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name} has no option {option!r}{nearest(option, known)}: it has {', '.join(known)}")
        _check_range(option, value)
    return NETWORKS[name](**options)


def is_whitened(name: str) -> bool:
    """Return whether the first filters of a network are computed from images, all of them at once."""
    return any(isinstance(layer, WhiteningConv) for layer in skeleton(name).modules())


def skeleton(name: str, **options: object) -> nn.Module:
    """Return the network that `build_network` makes of the same arguments, without memory: shapes and no content.

    The last one is kept for who asks again. It is shared: copy it to change it.
    """
    key = repr((name, sorted(options.items())))
    if key not in _skeletons:
        with torch.device("meta"):
            made = build_network(name, **options)  # type: ignore[arg-type]  # plain values, checked there
        _skeletons.clear()
        _skeletons[key] = made
    return _skeletons[key]


_skeletons: dict[str, nn.Module] = {}


def _check_range(option: str, value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and option != "dropout" and value < 1:
        raise UserError(f"{option} {value} is too small: use 1 or more")
    if option == "dropout" and not (isinstance(value, int | float) and in_range(value, DROPOUT)):
        raise UserError(f"dropout {value} is not a probability below 1: it takes {DROPOUT.text}")
