"""Augmentations that suit grey images on black: rotate, shift, scale, shear, and change the tones.

One bilinear sampling does all of the geometry of a batch, one line through the grey levels all of its tones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vgg_lightning.data.augment.place import Place

# What `randaugment` draws from, with the largest change of each at magnitude 1: degrees, tangents, pixels, shares.
OPERATIONS = {
    "rotate": 30.0,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "move_x": 4.0,
    "move_y": 4.0,
    "light": 0.4,
    "contrast": 0.6,
}


def affine(
    images: Tensor,
    generator: torch.Generator,
    place: Place | None = None,
    degrees: float = 10.0,
    pixels: float = 2.0,
    scale: float = 0.1,
    shear: float = 5.0,
) -> Tensor:
    """Rotate, shift, scale and shear each image, uniformly up to these amounts; what comes in is black.

    `degrees` and `shear` are degrees, `pixels` are for both directions, `scale` 0.1 is a size of 0.9 to 1.1.
    """
    draws = 2 * torch.rand(5, len(images), generator=generator, device=images.device) - 1
    return warp(
        images,
        angle=draws[0] * math.radians(degrees),
        shear_x=(draws[1] * math.radians(shear)).tan(),
        shear_y=torch.zeros_like(draws[1]),
        move=pixels * draws[2:4],
        scale=1 + scale * draws[4],
    )


def tone(
    images: Tensor, generator: torch.Generator, place: Place | None = None, light: float = 0.2, contrast: float = 0.3
) -> Tensor:
    """Make each image lighter or darker by up to `light` of the full range, and its contrast by `contrast`."""
    draws = 2 * torch.rand(2, len(images), generator=generator, device=images.device) - 1
    return retone(images, light * draws[0], 1 + contrast * draws[1])


def randaugment(
    images: Tensor, generator: torch.Generator, place: Place | None = None, ops: int = 2, magnitude: float = 0.5
) -> Tensor:
    """Change each image by `ops` operations out of `OPERATIONS`, each by up to `magnitude` of its largest change.

    After Cubuk et al., https://arxiv.org/abs/1909.13719, without the operations on colours and those that lighten
    the black ground. Operations that come together are carried out as one; one that is drawn twice adds up.
    """
    n, kinds = len(images), len(OPERATIONS)
    drawn = torch.randint(0, kinds, (ops, n), generator=generator, device=images.device)
    amounts = magnitude * (2 * torch.rand(ops, n, generator=generator, device=images.device) - 1)
    total = torch.zeros(kinds, n, device=images.device).scatter_add_(0, drawn, amounts)
    total = total * torch.tensor(tuple(OPERATIONS.values()), device=images.device)[:, None]
    change = dict(zip(OPERATIONS, total, strict=True))
    warped = warp(
        images,
        angle=torch.deg2rad(change["rotate"]),
        shear_x=change["shear_x"],
        shear_y=change["shear_y"],
        move=total[3:5],
        scale=torch.ones_like(total[0]),
    )
    return retone(warped, change["light"], 1 + change["contrast"])


def warp(images: Tensor, angle: Tensor, shear_x: Tensor, shear_y: Tensor, move: Tensor, scale: Tensor) -> Tensor:
    """Return square images, sheared along x, then along y, rotated and scaled about their centres, then moved.

    Args:
        images: uint8 (N, C, H, H).
        angle: clockwise, in radians (N,).
        shear_x: tangents of the angles of the shear along x (N,).
        shear_y: those along y (N,).
        move: pixels to the right and down (2, N).
        scale: factors of the size (N,).
    """
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # The way back: from a pixel of the result to where its grey level is found.
    unscaled = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], 1)  # (N, 2, 2)
    one, zero = torch.ones_like(shear_x), torch.zeros_like(shear_x)
    along_y = torch.stack([torch.stack([one, zero], -1), torch.stack([-shear_y, one], -1)], 1)
    along_x = torch.stack([torch.stack([one, -shear_x], -1), torch.stack([zero, one], -1)], 1)
    back = along_x @ along_y @ unscaled
    grid = _grid(back, back @ move.T[:, :, None], images.shape[-1])
    return F.grid_sample(images.float(), grid, align_corners=False).round_().to(images.dtype)


def _grid(back: Tensor, move: Tensor, size: int) -> Tensor:
    """Return where to read each pixel, (N, size, size, 2) in the unit of `grid_sample`: half an image.

    It is F.affine_grid by sums of a row and a column, in a fifth of its time, and takes an empty batch.
    """
    centres = (2 * torch.arange(size, device=back.device) + 1) / size - 1
    along_x, along_y = back[:, :, 0, None] * centres, back[:, :, 1, None] * centres - 2 / size * move  # (N, 2, size)
    return (along_x[:, :, None, :] + along_y[:, :, :, None]).movedim(1, -1)


def retone(images: Tensor, light: Tensor, contrast: Tensor) -> Tensor:
    """Return uint8 images, grey levels stretched about each image's mean by `contrast`, and lifted by `light`.

    Both are (N,); `light` is a share of the full range. Black stays black: it is the ground, not a tone.
    """
    levels = images.float()
    mean = levels.mean(dim=(1, 2, 3), keepdim=True)
    changed = (levels - mean) * contrast[:, None, None, None] + mean + 255 * light[:, None, None, None]
    return torch.where(images > 0, changed.round_().clamp_(0, 255).to(images.dtype), images)
