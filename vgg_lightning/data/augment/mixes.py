"""Augmentations that mix each image with another one of its batch, and their labels in the same share.

Images are uint8 (N, C, H, W), targets float32 (N, num_classes): the shares of the classes, of sum 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vgg_lightning.base.torch_private import standard_gamma
from vgg_lightning.data.augment.patches import rectangle

Mixed = tuple[Tensor, Tensor]


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator, alpha: float = 0.2, p: float = 1.0) -> Mixed:
    """Average each image with another one, with probability `p`: Zhang et al., https://arxiv.org/abs/1710.09412.

    The share of the other one is drawn from Beta(alpha, alpha), for each image anew; grey levels are rounded.
    """
    other = torch.randperm(len(images), generator=generator, device=images.device)
    share = _chosen(images, generator, p) * _beta(alpha, len(images), generator)
    mixed = torch.lerp(images.float(), images[other].float(), share[:, None, None, None]).round_()
    return mixed.to(images.dtype), _share_labels(targets, other, share)


def cutmix(images: Tensor, targets: Tensor, generator: torch.Generator, alpha: float = 1.0, p: float = 0.5) -> Mixed:
    """Paste a rectangle of another image into each one, with probability `p`: https://arxiv.org/abs/1905.04899.

    Yun et al. The rectangle's share of the area is drawn from Beta(alpha, alpha), its centre is uniform, and what lies
    outside of the image is cut off; the labels take the share of what is seen.
    """
    height, width = images.shape[2:]
    other = torch.randperm(len(images), generator=generator, device=images.device)
    side = (_chosen(images, generator, p) * _beta(alpha, len(images), generator)).sqrt()
    centre = torch.rand(2, len(images), generator=generator, device=images.device)
    edges = [
        (edge * size).round().clamp(0, size)
        for c, size in ((centre[0], height), (centre[1], width))
        for edge in (c - side / 2, c + side / 2)
    ]
    top, bottom, left, right = edges
    inside = rectangle(images, top, left, bottom, right)
    share = (bottom - top) * (right - left) / (height * width)
    return torch.where(inside, images[other], images), _share_labels(targets, other, share)


def _chosen(images: Tensor, generator: torch.Generator, p: float) -> Tensor:
    return torch.rand(len(images), generator=generator, device=images.device) < p


def _beta(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Return n numbers of Beta(alpha, alpha), which torch.distributions can draw from the global generator only."""
    if alpha == 1:
        return torch.rand(n, generator=generator, device=generator.device)
    shape = torch.full((2, n), alpha, device=generator.device)
    first, second = standard_gamma(shape, generator)
    share: Tensor = first / (first + second).clamp_min(torch.finfo(first.dtype).tiny)
    return share


def _share_labels(targets: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(targets, targets[other], share[:, None].to(targets.dtype))
