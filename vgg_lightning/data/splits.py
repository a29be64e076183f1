"""One fixed split of the official training pictures into training and validation."""

from __future__ import annotations

import torch
from torch import Tensor

from vgg_lightning.base.errors import UserError, option

SPLIT_SEED = 1409_1556  # fixed: a split that moved with the seed would leak validation pictures between runs


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
