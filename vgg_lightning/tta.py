"""Test-time augmentation: a network's answer is averaged over several views of the picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vgg_lightning.errors import UserError, nearest


def mirror(x: Tensor) -> Tensor:
    """Return pictures (..., W), left and right exchanged."""
    return x.flip(-1)


# What is done to the pictures for each view beside the plain one.
VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {"none": (), "flip": (mirror,)}


def check_tta(name: str) -> None:
    """Raise UserError if `name` is not a key of `VIEWS`."""
    if name not in VIEWS:
        raise UserError(f"tta {name!r} is unknown{nearest(name, VIEWS)}: --model.tta takes {', '.join(VIEWS)}")


def average_views(name: str, network: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor) -> Tensor:
    """Return the mean of `logits`, which `network` gave for `x`, and of those of the other views."""
    others = [network(view(x)) for view in VIEWS[name]]
    return torch.stack([logits, *others]).mean(dim=0) if others else logits
