"""DenseNet: every convolution sees the outputs of all those before it in its block.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks",
https://arxiv.org/abs/1608.06993.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vgg_lightning.networks.resnet import stem
from vgg_lightning.networks.sizes import checked_side


def conv_block(in_channels: int, growth_rate: int) -> nn.Sequential:
    """Return BatchNorm, ReLU and a 3x3 convolution to `growth_rate` channels."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels), nn.ReLU(), nn.Conv2d(in_channels, growth_rate, kernel_size=3, padding=1)
    )


def transition_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a 1x1 convolution to `out_channels` and a pooling that halves height and width."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size=1),
        nn.AvgPool2d(kernel_size=2, stride=2),
    )


class DenseLayer(nn.Module):
    """A convolution whose output is joined to its input on the channels.

    Args:
        in_channels: channels of the input.
        growth_rate: channels that the convolution adds.
    """

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.conv = conv_block(in_channels, growth_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + growth_rate, H, W)."""
        return torch.cat((x, self.conv(x)), dim=1)


def dense_block(num_convs: int, in_channels: int, growth_rate: int) -> nn.Sequential:
    """Return `num_convs` dense layers, which add `num_convs * growth_rate` channels."""
    return nn.Sequential(*(DenseLayer(in_channels + i * growth_rate, growth_rate) for i in range(num_convs)))


class DenseNet(nn.Module):
    """DenseNet: a stem, four dense blocks with transitions between them, global average pooling.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels, at least 29.
        growth_rate: channels that one convolution of a dense block adds.

    Raises:
        UserError: if the image is too small.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, image_size: int = 96, growth_rate: int = 32
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = [stem(in_channels)]
        channels = 64
        for num_convs in (4, 4, 4, 4):
            if len(blocks) > 1:
                blocks.append(transition_block(channels, channels // 2))
                channels //= 2
            blocks.append(dense_block(num_convs, channels, growth_rate))
            channels += num_convs * growth_rate
        self.blocks = nn.Sequential(*blocks)
        checked_side(self.blocks, image_size)
        self.head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
