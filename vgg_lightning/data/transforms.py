"""What every picture goes through before the network, whole batches on the device where they lie: resize, normalise."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.data.catalogue import MEAN, STD
from vgg_lightning.errors import UserError

NATIVE_SIZE = 28  # pixels of a Fashion-MNIST picture
LARGEST_PADDED = 32  # up to here a picture is framed in black; beyond, it is enlarged


class Preprocess(nn.Module):
    """Turns uint8 pictures into the network's input: enlarge, scale to 0..1, normalise, repeat the channel.

    28 to 32 pixels is a black frame (no blur); more is bilinear, equal to torchvision's `Resize` of a PIL picture and
    `ToTensor`: bit for bit at sizes such as 56, 64, 112, 128 and 224, else to within 1/255 in few pixels.

    Args:
        image_size: height and width of the result in pixels, at least 28.
        normalize: subtract the mean and divide by the standard deviation of the training pictures.
        in_channels: channels of the result; the grey channel is repeated.
        mean: of the pixels of the training pictures, scaled to 0..1.
        std: their standard deviation.
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
            raise UserError(f"mean {mean} and std {std} are out of range: numbers are needed, --data.std positive ones")
        if image_size < NATIVE_SIZE:
            raise UserError(
                f"image_size {image_size} is too small: Fashion-MNIST has {NATIVE_SIZE} pixels; "
                f"use --data.image_size {NATIVE_SIZE} or more"
            )
        self.image_size = image_size
        self.normalize = normalize
        self.in_channels = in_channels
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 pictures (N, 1, H, W) to float32 (N, in_channels, image_size, image_size)."""
        x = resize(images.float(), self.image_size).div_(255)
        if self.normalize:
            x.sub_(self.mean).div_(self.std)
        return x.expand(-1, self.in_channels, -1, -1)


def resize(x: Tensor, size: int) -> Tensor:
    """Bring square pictures (N, 1, H, H) to (N, 1, size, size): a frame of zeros up to 32 pixels, else bilinear.

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
    exporting = torch.compiler.is_exporting()
    kind = torch.float64 if x.is_cuda else torch.float32  # a GPU may cut float32 products to 10 bits
    weights = (column_weights if exporting else _kept_weights)(x.shape[-1], size, kind, x.device)
    # A product is three times as fast as torch's kernel, which is not vectorised over the width.
    with nullcontext() if exporting else torch.autocast(x.device.type, enabled=False):
        return (x.to(kind) @ weights).add_(0.5).floor_().to(x.dtype)


def _taller(x: Tensor, size: int) -> Tensor:
    """Enlarge in height, to Pillow's grey levels but for some halves."""
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        return _to_grey_levels(F.interpolate(x, size=(size, x.shape[-1]), mode="bilinear", align_corners=False))
    # On a CPU torch's kernel is vectorised over channels, so the columns take their place: channels_last as they lie.
    n, channels, height, width = x.shape
    columns = x.reshape(n * channels, height, 1, width).permute(0, 3, 1, 2)
    tall = _to_grey_levels(F.interpolate(columns, size=(size, 1), mode="bilinear", align_corners=False))
    return tall.permute(0, 2, 3, 1).reshape(n, channels, size, width)


def column_weights(size: int, larger: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the weights (size, larger) with which columns of a picture make those of the enlarged one.

    Pillow's weights have 22 bits, and what is missing decides which way a half is rounded. It is drowned in the
    errors of float32, so here it is made larger: still far from what would move another value across a half.
    """
    exact = F.interpolate(torch.eye(size, dtype=torch.float64)[None], size=larger, mode="linear", align_corners=False)[
        0
    ]
    missing = (exact * 2**22).round() / 2**22 - exact
    steps = 2 * larger // math.gcd(size, larger)  # values are multiples of 1 / steps
    return (exact + missing.sign() / (300 * steps)).to(device, dtype)


_kept_weights = lru_cache(maxsize=16)(column_weights)


def _to_grey_levels(x: Tensor) -> Tensor:
    """Round in place, halves up: the errors of torch's kernels, below 0.0006, are not to decide about them."""
    return x.add_(0.501).floor_()
