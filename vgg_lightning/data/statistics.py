"""Mean and standard deviation of pictures, by which the network's input is normalised."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 10_000  # pictures
DECIMALS = 4  # as those of Fashion-MNIST are given


def mean_and_std(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of uint8 pictures (N, 1, H, W), scaled to 0..1.

    They are counted in whole numbers, so no order of summation and no number of threads changes a digit.
    """
    counts = torch.zeros(256, dtype=torch.int64)
    for chunk in torch.split(images, CHUNK):
        counts += torch.bincount(chunk.flatten(), minlength=256)
    numbers = counts.tolist()
    total = sum(numbers)
    mean = sum(value * n for value, n in enumerate(numbers)) / total
    variance = sum(n * (value - mean) ** 2 for value, n in enumerate(numbers)) / total
    return round(mean / 255, DECIMALS), round(variance**0.5 / 255, DECIMALS)
