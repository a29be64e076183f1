"""ResNet-18: blocks that learn what to add to their input.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

from torch import Tensor, nn

from vgg_lightning.networks.sizes import checked_side


def stem(in_channels: int) -> nn.Sequential:
    """Return the first block, which quarters height and width: a 7x7 convolution and a max-pooling."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions whose result is added to the input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        use_1x1conv: send the input through a 1x1 convolution first, needed where channels or size change.
        stride: of the first convolution and of the 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, use_1x1conv: bool = False, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride) if use_1x1conv else nn.Identity()
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), rounded up."""
        y: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


def residual_stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two residual blocks; the first halves height and width where the channels change."""
    changes = in_channels != out_channels
    return nn.Sequential(
        Residual(in_channels, out_channels, use_1x1conv=changes, stride=2 if changes else 1),
        Residual(out_channels, out_channels),
    )


class ResNet18(nn.Module):
    """ResNet-18: a stem, four stages of two residual blocks, global average pooling.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels; every size works.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        channels = (64, 64, 128, 256, 512)
        stages = (residual_stage(channels[i], channels[i + 1]) for i in range(4))
        self.blocks = nn.Sequential(stem(in_channels), *stages)
        checked_side(self.blocks[0], image_size)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
