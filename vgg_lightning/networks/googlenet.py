"""GoogLeNet: blocks of four parallel paths with windows of different sizes.

Szegedy et al., "Going Deeper with Convolutions", https://arxiv.org/abs/1409.4842; here without the two
auxiliary classifiers and the local response normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vgg_lightning.networks.sizes import checked_side


def conv_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with ReLU, padded such that stride 1 keeps height and width."""
    padding = kernel_size // 2
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding), nn.ReLU())


class Inception(nn.Module):
    """Four paths over the same input, joined on the channels; height and width stay.

    Args:
        in_channels: channels of the input.
        c1: channels of path 1, a 1x1 convolution.
        c2: channels of path 2, a 1x1 and a 3x3 convolution.
        c3: channels of path 3, a 1x1 and a 5x5 convolution.
        c4: channels of path 4, a 3x3 max-pooling and a 1x1 convolution.
    """

    def __init__(self, in_channels: int, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> None:
        super().__init__()
        self.path1 = conv_relu(in_channels, c1, 1)
        self.path2 = nn.Sequential(conv_relu(in_channels, c2[0], 1), conv_relu(*c2, 3))
        self.path3 = nn.Sequential(conv_relu(in_channels, c3[0], 1), conv_relu(*c3, 5))
        self.path4 = nn.Sequential(nn.MaxPool2d(kernel_size=3, stride=1, padding=1), conv_relu(in_channels, c4, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, c1 + c2[1] + c3[1] + c4, H, W)."""
        return torch.cat((self.path1(x), self.path2(x), self.path3(x), self.path4(x)), dim=1)


class GoogLeNet(nn.Module):
    """GoogLeNet: two blocks of plain convolutions, three of Inception, global average pooling.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels; every size works.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 96) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(conv_relu(in_channels, 64, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)),
            nn.Sequential(conv_relu(64, 64, 1), conv_relu(64, 192, 3), nn.MaxPool2d(3, stride=2, padding=1)),
            nn.Sequential(
                Inception(192, 64, (96, 128), (16, 32), 32),
                Inception(256, 128, (128, 192), (32, 96), 64),
                nn.MaxPool2d(3, stride=2, padding=1),
            ),
            nn.Sequential(
                Inception(480, 192, (96, 208), (16, 48), 64),
                Inception(512, 160, (112, 224), (24, 64), 64),
                Inception(512, 128, (128, 256), (24, 64), 64),
                Inception(512, 112, (144, 288), (32, 64), 64),
                Inception(528, 256, (160, 320), (32, 128), 128),
                nn.MaxPool2d(2, stride=2, padding=1),
            ),
            nn.Sequential(
                Inception(832, 256, (160, 320), (32, 128), 128),
                Inception(832, 384, (192, 384), (48, 128), 128),
            ),
        )
        checked_side(self.blocks, image_size)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
