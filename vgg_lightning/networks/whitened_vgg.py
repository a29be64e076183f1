"""Small VGGs behind a whitening stem: one to train in seconds, and one with twice the convolutions.

The stem is that of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", https://arxiv.org/abs/2404.00498,
section 3.1: its filters are computed from the training images and stay as they are.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.machine import widest_float
from vgg_lightning.networks.sizes import checked_side

CHANNELS = (64, 128, 128)
DEEP_CHANNELS = (96, 192, 384)
WHITENED = 16  # channels of the stem: 8 filters and their negatives, since the ReLU behind them cuts off one sign
BN_MOMENTUM = 0.4  # of the running statistics, which have to keep up with few steps
EPS = 5e-4  # keeps filters of nearly constant directions from blowing up


class WhiteningConv(nn.Conv2d):
    """A 3x3 convolution whose outputs have second moments of 1 and are not correlated, once `whiten` was called.

    Only its bias is trained. Until `whiten`, the filters are those that torch draws.

    Args:
        in_channels: channels of the input.
        out_channels: an even number, at most twice the 9 * in_channels values of a patch.
    """

    bias: nn.Parameter
    whitened: Tensor  # bool (): in every checkpoint, so that no filter is computed anew behind a trained network

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)
        self.weight.requires_grad_(False)
        self.register_buffer("whitened", torch.tensor(False))

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Take the strongest directions of the 3x3 patches of `images` (N, in_channels, H, W), and their negatives."""
        filters = whitening_filters(images)[: self.out_channels // 2]
        self.weight.copy_(torch.cat([filters, -filters]))
        self.bias.zero_()
        self.whitened.fill_(True)


def whitening_filters(images: Tensor) -> Tensor:
    """Return filters (9 * C, C, 3, 3) that whiten the 3x3 patches of `images` (N, C, H, W), the strongest first."""
    size = 9 * images.shape[1]
    wide = widest_float(images.device)
    moments, count = torch.zeros(size, size, dtype=wide, device=images.device), 0
    for chunk in torch.split(images, 500):  # all at once would take 0.2 GB
        patches = F.unfold(chunk.to(wide), kernel_size=3)  # (N, size, places)
        moments += (patches @ patches.mT).sum(dim=0)
        count += len(patches) * patches.shape[-1]
    values, vectors = torch.linalg.eigh(moments / count)
    filters: Tensor = vectors / (values + EPS).sqrt()
    return filters.T.flip(0).reshape(-1, images.shape[1], 3, 3)


def conv_block(in_channels: int, out_channels: int, pool: bool = True) -> nn.Sequential:
    """Return a 3x3 convolution, a 2x2 max-pooling, BatchNorm and ReLU.

    The pooling comes first, so that BatchNorm and ReLU have a quarter of the work; with the ReLU it may change places.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers, nn.BatchNorm2d(out_channels, momentum=BN_MOMENTUM), nn.ReLU())


class WhitenedVGG(nn.Module):
    """A whitening stem, three convolutions of 64, 128 and 128 channels, global max-pooling, a Linear layer.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels, at least 8.
        ratio: divides the channels of the three convolutions.

    Raises:
        UserError: if `ratio` does not divide the channels, or the image is too small for the poolings.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 224, ratio: int = 1) -> None:
        super().__init__()
        first, second, third = _divided(CHANNELS, ratio)
        self.blocks = nn.Sequential(
            nn.Sequential(WhiteningConv(in_channels, WHITENED), nn.MaxPool2d(kernel_size=2, stride=2), nn.ReLU()),
            conv_block(WHITENED, first),
            conv_block(first, second),
            conv_block(second, third, pool=False),
        )
        checked_side(self.blocks, image_size)
        self.head = pooled_head(third, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits


class DeepWhitenedVGG(nn.Module):
    """A whitening stem, three blocks of two convolutions, global max-pooling, a Linear layer.

    The blocks have 96, 192 and 384 channels, and their pooling stands behind the first of their convolutions, so
    that the second has a quarter of the work. The stem does not pool.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels, at least 8.
        ratio: divides the channels of the blocks.

    Raises:
        UserError: if `ratio` does not divide the channels, or the image is too small for the poolings.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 224, ratio: int = 1) -> None:
        super().__init__()
        channels = [WHITENED, *_divided(DEEP_CHANNELS, ratio)]
        blocks = [
            nn.Sequential(conv_block(before, after), conv_block(after, after, pool=False))
            for before, after in itertools.pairwise(channels)
        ]
        self.blocks = nn.Sequential(nn.Sequential(WhiteningConv(in_channels, WHITENED), nn.ReLU()), *blocks)
        checked_side(self.blocks, image_size)
        self.head = pooled_head(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits


def pooled_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """Return a head of global max-pooling and one Linear layer without a bias."""
    return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes, bias=False))


def _divided(channels: tuple[int, ...], ratio: int) -> list[int]:
    if ratio < 1 or any(c % ratio for c in channels):
        fitting = ", ".join(str(r) for r in range(1, min(channels) + 1) if not any(c % r for c in channels))
        raise UserError(f"ratio {ratio} does not divide the channels {channels}: use one of {fitting}")
    return [c // ratio for c in channels]
