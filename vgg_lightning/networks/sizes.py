"""How convolutions and poolings shrink an image: sizes are computed from the layers."""

from __future__ import annotations

import itertools

from torch import nn

from vgg_lightning.base.errors import UserError

Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def window(layer: Windowed) -> tuple[int, int, int]:
    """Return kernel size, stride and padding of a layer that slides a square window over its input."""
    kernel, stride, padding = (
        value if isinstance(value, int) else int(value[0]) for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    return kernel, stride, padding


def output_side(layers: nn.Module, image_size: int) -> int:
    """Return height and width after `layers`, one behind the other; 0 if nothing is left of the image."""
    side = image_size
    for layer in layers.modules():
        if isinstance(layer, Windowed):
            kernel, stride, padding = window(layer)
            side = (side + 2 * padding - kernel) // stride + 1
        if side < 1:
            return 0
    return side


def checked_side(layers: nn.Module, image_size: int) -> int:
    """Return `output_side`, and refuse an image that is too small.

    Raises:
        UserError: names the smallest size of which a pixel is left.
    """
    side = output_side(layers, image_size)
    if side < 1:
        smallest = next(size for size in itertools.count(1) if output_side(layers, size))
        raise UserError(f"image_size {image_size} is too small: this network needs at least {smallest}")
    return side
