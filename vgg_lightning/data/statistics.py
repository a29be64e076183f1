"""Mean and standard deviation of images, by which the network's input is normalised."""

from __future__ import annotations

import torch
from torch import Tensor

from vgg_lightning.base.errors import UserError

CHUNK = 10_000  # images
DECIMALS = 4  # as those of Fashion-MNIST are given


def mean_and_std(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of uint8 images (N, 1, H, W), scaled to 0..1.

    They are counted in whole numbers, so no order of summation and no number of threads changes a digit.

    Raises:
        UserError: All pixels have the same level, or almost, so there is nothing to divide by.
    """
    counts = torch.zeros(256, dtype=torch.int64)
    for chunk in torch.split(images, CHUNK):
        counts += torch.bincount(chunk.flatten(), minlength=256)
    numbers = counts.tolist()
    total = sum(numbers)
    mean = sum(value * n for value, n in enumerate(numbers)) / total
    variance = sum(n * (value - mean) ** 2 for value, n in enumerate(numbers)) / total
    std = round(variance**0.5 / 255, DECIMALS)
    if not std:
        raise UserError("the training images are all of one grey level, so there is nothing to learn: look at the data")
    return round(mean / 255, DECIMALS), std
