"""Preprocessing of every image: resize and normalise whole batches on their device."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.data.options import MEAN, STD

NATIVE_SIZE = 28  # pixels of a Fashion-MNIST image
LARGEST_PADDED = 32  # up to here an image is framed in black; beyond, it is enlarged


class Preprocess(nn.Module):
    """Turns uint8 images into the network's input: enlarge, scale to 0..1, normalise, repeat the channel.

    28 to 32 pixels is a black frame (no blur); more is bilinear, equal to torchvision's `Resize` of a PIL image and
    `ToTensor`: bit for bit at sizes such as 56, 64, 112, 128 and 224, else to within 1/255, in few pixels (96: 0.2 %).

    Args:
        image_size: height and width of the result in pixels, at least 28.
        normalize: subtract the mean and divide by the standard deviation of the training images.
        in_channels: channels of the result; the grey channel is repeated.
        mean: of the pixels of the training images, scaled to 0..1.
        std: their standard deviation.

    Attributes:
        provisional: mean and std stand in for those of images that nobody has looked at yet.
    """

    def __init__(
        self,
        image_size: int = 32,
        normalize: bool = True,
        in_channels: int = 1,
        mean: float = MEAN,
        std: float = STD,
    ) -> None:
        super().__init__()
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise UserError(
                f"mean {mean} and std {std} are out of range: numbers are needed, {option('data.std')} positive ones"
            )
        if image_size < NATIVE_SIZE:
            raise UserError(
                f"image_size {image_size} is too small: Fashion-MNIST has {NATIVE_SIZE} pixels; "
                f"use {option('data.image_size')} {NATIVE_SIZE} or more"
            )
        self.image_size = image_size
        self.normalize = normalize
        self.in_channels = in_channels
        self.mean, self.std = mean, std
        self.provisional = False

    def options(self) -> dict[str, Any]:
        """Return the arguments with which to make it again."""
        return {name: getattr(self, name) for name in ("image_size", "normalize", "in_channels", "mean", "std")}

    def describe(self) -> str:
        """Return how it normalises, in words."""
        return f"normalized by mean {self.mean:g} and std {self.std:g}" if self.normalize else "not normalized"

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, 1, H, W) to float32 (N, in_channels, image_size, image_size)."""
        x = resize(images.float(), self.image_size).div_(255)
        if self.normalize:
            x.sub_(self.mean).div_(self.std)
        return x.expand(-1, self.in_channels, -1, -1)


def resize(x: Tensor, size: int) -> Tensor:
    """Bring square images (N, 1, H, H) to (N, 1, size, size): a frame of zeros up to 32 pixels, else bilinear.

    Values are the grey levels 0 to 255, and are rounded to them as Pillow does: after the step in width and after the
    step in height.
    """
    missing = size - x.shape[-1]
    if missing == 0:
        return x
    if missing < 0:
        return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True).round_()
    if size <= LARGEST_PADDED:
        before, after = missing // 2, missing - missing // 2
        return F.pad(x, (before, after, before, after))
    return _taller(_wider(x, size), size)


def _wider(x: Tensor, size: int) -> Tensor:
    """Enlarge in width, to the very grey levels of Pillow."""
    # A product is three times as fast as torch's kernel, which is not vectorised over the width.
    weights = _weights(x, size, halves=True)
    with _full_precision(x):
        return (x.to(weights.dtype) @ weights).add_(0.5).floor_().to(x.dtype)


def _taller(x: Tensor, size: int) -> Tensor:
    """Enlarge in height, to Pillow's grey levels but for halves, which go up: 0.001 is more than any kernel's error."""
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        weights = _weights(x, size, halves=False)
        with _full_precision(x):
            return (weights.mT @ x.to(weights.dtype)).add_(0.501).floor_().to(x.dtype)
    # On a CPU torch's kernel is faster. It is vectorised over channels: the columns take their place as they lie.
    n, channels, height, width = x.shape
    columns = x.reshape(n * channels, height, 1, width).permute(0, 3, 1, 2)
    tall = F.interpolate(columns, size=(size, 1), mode="bilinear", align_corners=False).add_(0.501).floor_()
    return tall.permute(0, 2, 3, 1).reshape(n, channels, size, width)


def bilinear_weights(size: int, larger: int, halves: bool) -> NDArray[np.float64]:
    """Return the weights (size, larger) with which columns of an image make those of the enlarged one.

    Pillow's weights have 22 bits, and what is missing decides which way a half is rounded. It drowns in the errors of
    float32, so with `halves` it is made larger: still far from what would move another value across a half.
    """
    columns = np.arange(larger)
    place = np.clip((2 * columns + 1) * size / (2 * larger) - 0.5, 0, size - 1)  # in columns of the image
    left = place.astype(int)
    weights = np.zeros((size, larger))
    weights[left, columns] = 1 - (place - left)
    weights[np.minimum(left + 1, size - 1), columns] += place - left
    if halves:
        missing = np.round(weights * 2**22) / 2**22 - weights
        steps = 2 * larger // math.gcd(size, larger)  # values are multiples of 1 / steps
        weights += np.sign(missing) / (300 * steps)
    return weights


def _made_weights(size: int, larger: int, halves: bool, device: torch.device) -> Tensor:
    dtype = torch.float64 if device.type == "cuda" else torch.float32  # a GPU may cut float32 products to 10 bits
    return torch.from_numpy(bilinear_weights(size, larger, halves)).to(dtype).to(device)


_kept_weights = lru_cache(maxsize=16)(_made_weights)


def _weights(x: Tensor, size: int, halves: bool) -> Tensor:
    make = _made_weights if torch.compiler.is_exporting() else _kept_weights  # tensors of an export die with it
    return make(x.shape[-2], size, halves, x.device)


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(x.device.type, enabled=False)
