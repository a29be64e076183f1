"""Augmentations that move pixels without changing them: mirrored and shifted images, uint8 (N, C, H, W)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from vgg_lightning.base.seeds import derive_seed
from vgg_lightning.data.augment.place import Place


def flip(images: Tensor, generator: torch.Generator, place: Place | None = None) -> Tensor:
    """Mirror each image left to right with probability one half."""
    chosen = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def alternating_flip(images: Tensor, generator: torch.Generator, place: Place) -> Tensor:
    """Mirror each image left to right in every other epoch, so that two epochs show both views of every image.

    Jordan, https://arxiv.org/abs/2404.00498, section 3.6. The seed decides which half of the images begins.
    """
    begins = first_half(place.size, place.seed, place.indices.device)[place.indices]
    chosen = (begins ^ bool(place.epoch % 2)).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


@functools.lru_cache(maxsize=1)  # it is asked for with every batch
def first_half(size: int, seed: int, device: torch.device | None = None) -> Tensor:
    """Return bool (size,) on `device`, True at a random half of the places."""
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(seed))) < size // 2
    return chosen.to(device)


def shift(images: Tensor, generator: torch.Generator, place: Place | None = None, pixels: int = 2) -> Tensor:
    """Move each image by up to `pixels` in both directions; what comes in is black."""
    padded = F.pad(images, (pixels, pixels, pixels, pixels))
    rows, columns = _windows(images, generator, pixels)
    return _gather(padded, rows, columns)


def crop(images: Tensor, generator: torch.Generator, place: Place | None = None, pixels: int = 2) -> Tensor:
    """Move each image by up to `pixels` in both directions; what comes in is the mirror image of the edge."""
    height, width = images.shape[2:]
    rows, columns = _windows(images, generator, pixels)
    return _gather(images, _reflected(rows - pixels, height), _reflected(columns - pixels, width))


def _windows(images: Tensor, generator: torch.Generator, pixels: int) -> tuple[Tensor, Tensor]:
    """Return rows (N, H) and columns (N, W) of a random window in each image, padded by `pixels` on all sides."""
    offsets = torch.randint(
        0, 2 * pixels + 1, (2, len(images), 1), generator=generator, device=images.device, dtype=torch.int64
    )
    height, width = images.shape[2:]
    rows = offsets[0] + torch.arange(height, device=images.device)
    return rows, offsets[1] + torch.arange(width, device=images.device)


def _reflected(places: Tensor, size: int) -> Tensor:
    inside = places.abs()
    return torch.where(inside < size, inside, 2 * (size - 1) - inside)


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    n, channels, _, width = images.shape
    places = rows[:, :, None] * width + columns[:, None, :]  # (N, H, W), in flattened images
    flat = places.flatten(1)[:, None].expand(n, channels, -1)
    return images.flatten(2).gather(2, flat).view(n, channels, *places.shape[1:])
