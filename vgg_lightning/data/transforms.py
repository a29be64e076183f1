"""What every picture goes through before the network, whole batches on the device where they lie: resize, normalise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.data.catalogue import MEAN, STD
from vgg_lightning.errors import UserError

NATIVE_SIZE = 28  # pixels of a Fashion-MNIST picture
LARGEST_PADDED = 32  # up to here a picture is framed in black; beyond, it is enlarged


class Preprocess(nn.Module):
    """Turns uint8 pictures into the network's input: enlarge, scale to 0..1, normalise, repeat the channel.

    28 to 32 pixels is a black frame (no blur); more is bilinear, equal to torchvision's `Resize` and
    `ToTensor` to within 1/255.

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

    Values are the grey levels 0 to 255; enlarged ones are rounded, as in a picture file of 8 bits.
    """
    missing = size - x.shape[-1]
    if missing == 0:
        return x
    if missing > 0 and size <= LARGEST_PADDED:
        before, after = missing // 2, missing - missing // 2
        return F.pad(x, (before, after, before, after))
    plain = torch.compiler.is_exporting() or x.device.type != "cpu"
    if missing > 0 and not plain and _is_exact(x.shape[-1], size):
        return _enlarge_in_two_steps(x, size).round_()
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=missing < 0).round_()


def _is_exact(size: int, larger: int) -> bool:
    """Whether the weights of bilinear enlargement are multiples of a power of two, so that no order of sums rounds."""
    parts = larger // math.gcd(size, larger)
    return parts & (parts - 1) == 0 and parts <= 128  # 8 bits of grey and twice 8 of weights: a float32 has 24


def _enlarge_in_two_steps(x: Tensor, size: int) -> Tensor:
    """Enlarge first in width, then in height: the same values in a quarter of the time on a CPU.

    For the second step the columns stand in the place of channels, over which torch's kernel is vectorised.
    """
    n, channels, height, _ = x.shape
    wide = F.interpolate(x, size=(height, size), mode="bilinear", align_corners=False)
    columns = wide.reshape(n * channels, height, 1, size).permute(0, 3, 1, 2)  # channels_last as it lies
    tall = F.interpolate(columns, size=(size, 1), mode="bilinear", align_corners=False)
    return tall.permute(0, 2, 3, 1).reshape(n, channels, size, size)
