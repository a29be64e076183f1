"""AlexNet: five convolutions, the first with large windows, and three Linear layers.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS
2012; here on one device, so without the split into two halves, and without local response normalisation.
"""

from __future__ import annotations

from torch import Tensor, nn

from vgg_lightning.networks.sizes import checked_side
from vgg_lightning.networks.vgg import classic_head


class AlexNet(nn.Module):
    """AlexNet for small data sets.

    Args:
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels, at least 65.
        hidden_units: width of the two hidden Linear layers.
        dropout: probability with which the head drops a feature.

    Raises:
        UserError: if the image is too small.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 224,
        hidden_units: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(in_channels, 96, kernel_size=11, stride=4, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(96, 256, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(256, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        in_features = 256 * checked_side(self.blocks, image_size) ** 2
        self.head = classic_head(in_features, hidden_units, num_classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
