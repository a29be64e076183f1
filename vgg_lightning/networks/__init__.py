"""The networks: one table from a name to a builder. Every builder returns a plain `nn.Module`.

To add one: write a file with a class that takes `in_channels`, `num_classes` and `image_size` (and options
of its own, all plain values), and give it a row here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from torch import nn

from vgg_lightning.errors import UserError, nearest
from vgg_lightning.networks.vgg import VGG, VGG_BLOCKS, load_torchvision_weights

__all__ = ["NETWORKS", "build_network", "load_torchvision_weights"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(VGG, arch) for name, arch in VGG_BLOCKS.items()},
}


def build_network(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 224,
    **options: object,
) -> nn.Module:
    """Return the network `name`, which maps (N, in_channels, image_size, image_size) to logits (N, num_classes).

    Args:
        name: a key of `NETWORKS`, such as "vgg11".
        in_channels: channels of the input, 1 for grey pictures.
        num_classes: number of logits.
        image_size: height and width of the input in pixels.
        options: what else the network's class takes, such as `ratio` and `batch_norm` of a VGG.

    Raises:
        UserError: if the name or an option is unknown, or if the options do not fit together.
    """
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is unknown{nearest(name, NETWORKS)}: use one of {', '.join(NETWORKS)}")
    builder = NETWORKS[name]
    known = [p for p in inspect.signature(builder).parameters if p != "arch"]
    for option in options:
        if option not in known:
            raise UserError(f"{name} has no option {option!r}{nearest(option, known)}: it has {', '.join(known)}")
    return builder(in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options)
