"""From images to predictions: logits, averaged over the views of test-time augmentation, and what they predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from vgg_lightning.base.errors import UserError, nearest, option

View = Callable[[Tensor], Tensor]


def mirror(x: Tensor) -> Tensor:
    """Return images (..., W), left and right exchanged."""
    return x.flip(-1)


def shifted(x: Tensor, pixels: int) -> Tensor:
    """Return images (N, C, H, W) moved down and right by `pixels` (up and left if negative); the edge is mirrored."""
    size = abs(pixels)
    begin = size - pixels
    padded = F.pad(x, (size, size, size, size), mode="reflect")
    return padded[..., begin : begin + x.shape[-2], begin : begin + x.shape[-1]]


def _diagonal(pixels: int) -> tuple[View, ...]:
    return partial(shifted, pixels=pixels), lambda x: mirror(shifted(x, pixels))


ViewsName = Literal["none", "flip", "flip_shift"]

# For each name the views beside the plain one, and the weights of all views, the plain one's first.
VIEWS: dict[ViewsName, tuple[tuple[View, ...], tuple[float, ...]]] = {
    "none": ((), (1.0,)),
    "flip": ((mirror,), (0.5, 0.5)),
    "flip_shift": ((mirror, *_diagonal(-1), *_diagonal(1)), (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)),
}


def check_tta(name: str) -> None:
    """Raise UserError if `name` is not a key of `VIEWS`."""
    if name not in VIEWS:
        takes = f"{option('model.tta')} takes {', '.join(VIEWS)}"
        raise UserError(f"tta {name!r} is unknown{nearest(name, VIEWS)}: {takes}")


def average_views(name: ViewsName, network: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor) -> Tensor:
    """Return the weighted mean of `logits`, which `network` gave for `x`, and of those of the other views."""
    views, (first, *weights) = VIEWS[name]
    mean = first * logits
    for view, weight in zip(views, weights, strict=True):
        mean = mean + weight * network(view(x))
    return mean


class Predictions(NamedTuple):
    """What a classifier predicts for N images.

    Attributes:
        labels: int64 (N,).
        names: the labels' class names.
        probabilities: float32 (N, num_classes).
    """

    labels: Tensor
    names: list[str]
    probabilities: Tensor

    @classmethod
    def of(cls, logits: Tensor, class_names: Sequence[str]) -> Predictions:
        """Return what logits, float32 (N, num_classes), predict."""
        probabilities = logits.softmax(dim=1)
        labels = probabilities.argmax(dim=1)
        return cls(labels, [class_names[i] for i in labels.tolist()], probabilities)
