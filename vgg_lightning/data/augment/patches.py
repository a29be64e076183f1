"""Augmentations that hide a part of each image, uint8 (N, C, H, W), under the mean grey of the training images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vgg_lightning.data.augment.place import Place
from vgg_lightning.data.options import MEAN

FILL = round(255 * MEAN)  # that of Fashion-MNIST; after normalising: zero
ASPECT = math.log(0.3)  # of the flattest rectangle; the steepest is its inverse
TRIES = 10  # for a rectangle that fits into the image, as in torchvision's RandomErasing


def erase(
    images: Tensor,
    generator: torch.Generator,
    place: Place | None = None,
    p: float = 0.5,
    least: float = 0.02,
    most: float = 0.4,
    fill: int = FILL,
) -> Tensor:
    """Fill a random rectangle of each image with probability `p`: Zhong et al., https://arxiv.org/abs/1708.04896.

    Its area is uniform between the shares `least` and `most` of the image, its sides' ratio log-uniform
    between 0.3 and 1 / 0.3. Torchvision's RandomErasing draws one rectangle for a whole batch.
    """
    n, _, height, width = images.shape
    draws = torch.rand(5, TRIES, n, generator=generator, device=images.device)
    area = (least + (most - least) * draws[0]) * height * width
    ratio = torch.exp(ASPECT * (1 - 2 * draws[1]))
    rows, columns = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (rows < height) & (columns < width)
    first = fits.int().argmax(dim=0)[None]  # 0 if none fits
    rows, columns, fits = rows.gather(0, first)[0], columns.gather(0, first)[0], fits.gather(0, first)[0]
    top = (draws[2, 0] * (height - rows + 1)).floor()
    left = (draws[3, 0] * (width - columns + 1)).floor()
    inside = rectangle(images, top, left, top + rows, left + columns)
    return images.masked_fill(inside & (fits & (draws[4, 0] < p))[:, None, None, None], fill)


def cutout(
    images: Tensor, generator: torch.Generator, place: Place | None = None, size: int = 8, fill: int = FILL
) -> Tensor:
    """Fill a square of `size` pixels around a random pixel of each image; at the edges less of it is seen.

    DeVries and Taylor, https://arxiv.org/abs/1708.04552.
    """
    n, _, height, width = images.shape
    draws = torch.rand(2, n, generator=generator, device=images.device)
    top, left = (draws[0] * height).floor() - size // 2, (draws[1] * width).floor() - size // 2
    return images.masked_fill(rectangle(images, top, left, top + size, left + size), fill)


def rectangle(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Return bool (N, 1, H, W), True within the rectangles (N,); bottom and right are the first pixels outside."""
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    rows = (y >= top[:, None]) & (y < bottom[:, None])
    columns = (x >= left[:, None]) & (x < right[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
