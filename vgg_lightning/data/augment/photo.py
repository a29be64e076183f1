"""What happens to clothes in photographs that nobody took for a data set."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vgg_lightning.data.augment.place import Place
from vgg_lightning.data.augment.warps import warp

GROUND = 16  # levels below which a pixel is the ground, or a garment's edge
TURN = 30.0  # degrees
LARGEST_CUT = 0.25  # of the image
FAINTEST = 0.2  # of the contrast
DARKEST = 0.4  # of all light, that a shadow takes
BLUR = 5  # pixels, of a shadow
SHADOW_PIXELS = 4.0  # how far it may fall
SMALLEST = 0.75  # size of a garment beside its shadow


def photo(images: Tensor, generator: torch.Generator, place: Place | None = None, p: float = 0.5) -> Tensor:
    """Change each image in some of five ways, each with probability `p`.

    It is cut off at one side, by up to a quarter, and turned by up to 30 degrees; its texture is taken away, in part or
    altogether; its contrast, down to a fifth; and it casts a soft shadow.
    """
    draws = torch.rand(9, len(images), generator=generator, device=images.device)
    cut, turn, flat, faint, shady = torch.rand(5, len(images), generator=generator, device=images.device) < p
    images, move, scale = _cut_off(images, LARGEST_CUT * draws[0] * cut, (4 * draws[1]).long())
    angle = math.radians(TURN) * (2 * draws[2] - 1) * turn
    none = torch.zeros_like(angle)
    scale = scale * (1 - (1 - SMALLEST) * draws[3] * shady)  # a garment is smaller if its shadow counts as part of it
    levels = warp(images, angle, none, none, move, scale).float()
    garment = levels > GROUND
    mean = (levels * garment).sum((1, 2, 3)) / garment.sum((1, 2, 3)).clamp_min(1)
    texture, contrast = 1 - draws[4] * flat, 1 - (1 - FAINTEST) * draws[5] * faint
    shown = (_column(mean) + _column(texture) * (levels - _column(mean))) * _column(contrast)
    shadow = _shadow(garment.float(), SHADOW_PIXELS * (2 * draws[6:8] - 1))
    ground = torch.maximum(levels * _column(contrast), shadow * _column(255 * DARKEST * draws[8] * shady))
    return torch.where(garment, shown, ground).round_().clamp_(0, 255).to(images.dtype)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _cut_off(images: Tensor, share: Tensor, side: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return images without a share of their garment at one side, and the move and the scale that fill them again.

    Args:
        images: uint8 (N, C, H, H).
        share: of the image that is cut off (N,).
        side: left, right, top or bottom (N,), from 0.
    """
    size = images.shape[-1]
    shown = (images > GROUND).any(dim=1)
    places = torch.arange(size, device=images.device)
    lines = torch.stack([shown.any(dim=1), shown.any(dim=2)])  # by column and by row (2, N, H)
    first = torch.where(lines, places, size).amin(dim=2)
    last = torch.where(lines, places, -1).amax(dim=2)
    across, end = side // 2, side % 2
    number = torch.arange(len(images), device=images.device)
    gone = (share * size).round()
    low = torch.where(end == 0, first[across, number] + gone, 0)
    high = torch.where(end == 1, last[across, number] - gone, size)
    kept = (places >= low[:, None]) & (places <= high[:, None])
    mask = torch.where((across == 0)[:, None, None], kept[:, None, :], kept[:, :, None])[:, None]
    extent = last - first + 1
    longer = extent[across, number] >= extent[1 - across, number]
    scale = torch.where(longer, extent[across, number] / (extent[across, number] - gone).clamp_min(1), 1.0)
    shift = gone / 2 * scale * (2 * end - 1)
    move = torch.stack([shift * (across == 0), shift * (across == 1)])
    return images * mask, move, scale


def _shadow(garment: Tensor, move: Tensor) -> Tensor:
    """Return a blurred copy of a garment (N, 1, H, H) from 0 to 1, moved by pixels (2, N), downwards alone."""
    blurred = F.avg_pool2d(garment, BLUR, stride=1, padding=BLUR // 2)
    none, one = torch.zeros_like(move[0]), torch.ones_like(move[0])
    moved = warp(255 * blurred, none, none, none, torch.stack([move[0], move[1].abs()]), one)
    return moved / 255
