"""VGG: blocks of 3x3 convolutions, each closed by a pooling that halves height and width.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
https://arxiv.org/abs/1409.1556, table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.networks.torchvision_weights import load_torchvision_weights as load_torchvision_weights

# (num_convs, out_channels) of each block: columns A, B, D and E of the paper's table 1.
VGG_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}

# Not of the paper: for images of 28 pixels, with most of the work where they are still large.
OWN_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg_small": ((2, 32), (2, 64), (2, 128)),
    "vgg_wide": ((2, 128), (2, 256), (3, 512)),
}


def vgg_block(
    num_convs: int,
    in_channels: int,
    out_channels: int,
    batch_norm: bool = False,
    norm_after_relu: bool = False,
    pool: bool = True,
) -> nn.Sequential:
    """Return one VGG block: `num_convs` 3x3 convolutions with ReLU, then a 2x2 max-pooling, unless `pool` is False.

    Maps (N, in_channels, H, W) to (N, out_channels, H // 2, W // 2). With `batch_norm`, each convolution
    loses its bias to a BatchNorm, which stands before the ReLU, or after it with `norm_after_relu`.
    """
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm))
        activation: list[nn.Module] = [nn.ReLU()]
        if batch_norm:
            activation.insert(1 if norm_after_relu else 0, nn.BatchNorm2d(out_channels))
        layers += activation
        in_channels = out_channels
    if pool:
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


Head = Literal["classic", "batchnorm", "gap"]


def classic_head(in_features: int, hidden_units: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return the paper's head: two hidden Linear layers, each with ReLU and dropout, then the logits."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, hidden_units),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_units, hidden_units),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_units, num_classes),
    )


def batchnorm_head(in_features: int, hidden_units: int, num_classes: int) -> nn.Sequential:
    """Return the classic head with BatchNorm1d before each ReLU instead of the dropout."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, hidden_units),
        nn.BatchNorm1d(hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, hidden_units),
        nn.BatchNorm1d(hidden_units),
        nn.ReLU(),
        nn.Linear(hidden_units, num_classes),
    )


def gap_head(in_channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return a head without hidden layers: global average pooling, dropout, one Linear layer."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(in_channels, num_classes)
    )


class VGG(nn.Module):
    """A VGG: `blocks` of convolutions, then a `head` that turns the features into logits.

    Args:
        arch: (num_convs, out_channels) of each block.
        in_channels: channels of the input, 1 for grey images.
        num_classes: number of logits.
        image_size: height and width of the input in pixels; every pooling halves it.
        ratio: divides the channels of every block.
        hidden_units: width of the two hidden layers of the heads "classic" and "batchnorm".
        batch_norm: BatchNorm with every convolution.
        norm_after_relu: BatchNorm after the ReLU instead of before it.
        head: "classic" (Linear layers with dropout), "batchnorm" or "gap" (global average pooling).
        dropout: probability with which the head drops a feature; the head "batchnorm" has none.
        poolings: how many blocks end in a pooling, the first ones; 3 leave 3 x 3 of 28 pixels.

    Raises:
        UserError: if `ratio` does not divide the channels, the image is too small for the poolings, or
            `norm_after_relu` comes without `batch_norm`.
    """

    def __init__(
        self,
        arch: Sequence[tuple[int, int]],
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 224,
        ratio: int = 1,
        hidden_units: int = 4096,
        batch_norm: bool = False,
        norm_after_relu: bool = False,
        head: Head = "classic",
        dropout: float = 0.5,
        poolings: int = 5,
    ) -> None:
        super().__init__()
        poolings = min(poolings, len(arch))
        _check(arch, image_size, ratio, poolings)
        if norm_after_relu and not batch_norm:
            raise UserError("norm_after_relu places the BatchNorm: use it together with batch_norm")
        self.norm_after_relu = norm_after_relu
        channels = [in_channels, *(out_channels // ratio for _, out_channels in arch)]
        self.blocks = nn.Sequential(
            *(
                vgg_block(num_convs, channels[i], channels[i + 1], batch_norm, norm_after_relu, i < poolings)
                for i, (num_convs, _) in enumerate(arch)
            )
        )
        in_features = channels[-1] * (image_size // 2**poolings) ** 2
        heads: dict[Head, Callable[[], nn.Module]] = {
            "classic": lambda: classic_head(in_features, hidden_units, num_classes, dropout),
            "batchnorm": lambda: batchnorm_head(in_features, hidden_units, num_classes),
            "gap": lambda: gap_head(channels[-1], num_classes, dropout),
        }
        if head not in heads:
            raise UserError(f"head {head!r} is unknown{nearest(head, heads)}: use one of {', '.join(heads)}")
        self.head = heads[head]()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.blocks(x))
        return logits


def _check(arch: Sequence[tuple[int, int]], image_size: int, ratio: int, poolings: int) -> None:
    smallest = 2**poolings
    if image_size < smallest:
        raise UserError(f"image_size {image_size} is too small: {poolings} poolings need at least {smallest}")
    narrowest = min(out_channels for _, out_channels in arch)
    if ratio < 1 or any(out_channels % ratio for _, out_channels in arch):
        fitting = ", ".join(str(r) for r in range(1, narrowest + 1) if not any(c % r for _, c in arch))
        raise UserError(f"ratio {ratio} does not divide the channels of the blocks: use one of {fitting}")
