"""NiN: a small network, made of 1x1 convolutions, at every position of the feature map; no Linear layer.

Lin, Chen and Yan, "Network In Network", https://arxiv.org/abs/1312.4400.
"""

from __future__ import annotations

from torch import Tensor, nn

from vgg_lightning.networks.sizes import checked_side


def nin_block(in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> nn.Sequential:
    """Return a convolution and two 1x1 convolutions, each with ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=1),
        nn.ReLU(),
    )


class NiN(nn.Module):
    """Network in network: the last block has one channel per class, whose averages are the logits.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels, at least 67.
        dropout: probability with which a value is dropped before the last block.

    Raises:
        UserError: if the image is too small.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, image_size: int = 224, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nin_block(in_channels, 96, kernel_size=11, stride=4, padding=0),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nin_block(96, 256, kernel_size=5, stride=1, padding=2),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nin_block(256, 384, kernel_size=3, stride=1, padding=1),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Dropout(dropout),
            nin_block(384, num_classes, kernel_size=3, stride=1, padding=1),
        )
        checked_side(self.blocks, image_size)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
