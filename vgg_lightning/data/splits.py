"""One fixed split of the training images into training and validation, and the order of a part of a split."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vgg_lightning.base.errors import UserError, option

SPLIT_SEED = 1409_1556  # fixed: a split that moved with the seed would leak validation images between runs


class Part(NamedTuple):
    """What a number was measured on.

    Attributes:
        seen: number of images.
        total: number of images in the split.
        text: what they are called: "the official test images", or "20 of the 48 held-out images of shapes".
    """

    seen: int
    total: int
    text: str

    @property
    def is_whole(self) -> bool:
        """Whether the whole split was read."""
        return self.seen == self.total

    @classmethod
    def of(cls, seen: int, total: int, kind: str, where: str = "") -> Part:
        """Return the part of a split of which `kind` and `where` are the name in front of and behind its number."""
        whole = f"{total:,} {kind}{where}"
        return cls(seen, total, whole if seen == total else f"{seen:,} of the {whole}")


def stratified_split(labels: Tensor, val_size: int) -> tuple[Tensor, Tensor]:
    """Split the indices of `labels` into training and validation, every class in its share.

    Args:
        labels: int64 (N,).
        val_size: number of validation examples, 0 to N - 1.

    Returns:
        Sorted training indices (N - val_size,) and sorted validation indices (val_size,).
    """
    if not 0 <= val_size < len(labels):
        raise UserError(f"val_size {val_size} is out of range: {option('data.val_size')} takes 0 to {len(labels) - 1}")
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    # Equally spaced picks out of the list sorted by class give each class its share to within one.
    chosen = torch.arange(val_size) * len(labels) // max(val_size, 1)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[by_class[chosen]] = True
    return torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()


def part_order(labels: Tensor, batch_size: int, limit: float) -> Tensor | None:
    """Return the order in which a part of a split is read, so that every class is in it as in the whole.

    Args:
        labels: int64 (N,) of the split.
        batch_size: images in a batch.
        limit: the part, as in the Trainer's limit_val_batches: a number of batches, or as a float a share of them.

    Returns:
        int64 (N,); None for the order of the data, which is right if all of it is read, or if classes are mixed in it.
    """
    batches = math.ceil(len(labels) / batch_size)
    read = int(limit * batches) if isinstance(limit, float) else limit
    if read >= batches or not _lies_by_class(labels):
        return None
    counts = torch.bincount(labels)
    by_class = torch.argsort(labels, stable=True)
    within = torch.arange(len(labels)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)  # its own class
    place = (2 * within + 1).double() / (2 * counts.repeat_interleave(counts))  # of all images, by class: 0 to 1
    return by_class[torch.argsort(place, stable=True)]


def _lies_by_class(labels: Tensor) -> bool:
    """Return whether neighbours are of the same class far more often than by chance, as in a folder of classes."""
    shares = torch.bincount(labels).double() / len(labels)
    changes = float((labels[1:] != labels[:-1]).double().mean()) if len(labels) > 1 else 0.0
    return changes < float(1 - shares.square().sum()) / 2
