"""What every picture goes through before the network, whole batches on the device where they lie: resize, normalise."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.errors import UserError

MEAN, STD = 0.2860, 0.3530  # of the pixels of the 60,000 training pictures, scaled to 0..1
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
    """

    def __init__(self, image_size: int = 32, normalize: bool = True, in_channels: int = 1) -> None:
        super().__init__()
        if image_size < NATIVE_SIZE:
            raise UserError(
                f"image_size {image_size} is too small: Fashion-MNIST has {NATIVE_SIZE} pixels; "
                f"use --data.image_size {NATIVE_SIZE} or more"
            )
        self.image_size = image_size
        self.normalize = normalize
        self.in_channels = in_channels

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 pictures (N, 1, H, W) to float32 (N, in_channels, image_size, image_size)."""
        x = resize(images.float(), self.image_size).div_(255)
        if self.normalize:
            x.sub_(MEAN).div_(STD)
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
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=missing < 0).round_()
