"""LeNet with batch normalisation: two convolutions and three Linear layers.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, with the
layers of https://arxiv.org/abs/1502.03167 in front of each sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vgg_lightning.networks.sizes import checked_side

Norm = Callable[[int], nn.Module]


class LeNet(nn.Module):
    """LeNet with BatchNorm.

    Args:
        norms: what normalises a number of features, after a convolution and after a Linear layer:
            `(nn.BatchNorm2d, nn.BatchNorm1d)`, or twice the `BatchNorm` written from scratch.
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels, at least 16.

    Raises:
        UserError: if the image is too small.
    """

    def __init__(
        self, norms: tuple[Norm, Norm], in_channels: int = 1, num_classes: int = 10, image_size: int = 28
    ) -> None:
        super().__init__()
        conv_norm, linear_norm = norms
        self.blocks = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5),
            conv_norm(6),
            nn.Sigmoid(),
            nn.AvgPool2d(kernel_size=2, stride=2),
            nn.Conv2d(6, 16, kernel_size=5),
            conv_norm(16),
            nn.Sigmoid(),
            nn.AvgPool2d(kernel_size=2, stride=2),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * checked_side(self.blocks, image_size) ** 2, 120),
            linear_norm(120),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            linear_norm(84),
            nn.Sigmoid(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
