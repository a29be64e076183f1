"""The mean loss over pictures, whatever the sizes of the batches."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """Adds up losses, each with the number of pictures that it is the mean of.

    torchmetrics' MeanMetric leaves such weights out where it is told not to look for NaN (`nan_strategy="disable"`),
    and to look for NaN makes a GPU wait at every batch.
    """

    full_state_update = False
    mean_value: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean_value", "weight"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, pictures: int) -> None:
        """Add the mean loss of so many pictures."""
        self.mean_value += loss * pictures
        self.weight += pictures

    def compute(self) -> Tensor:
        """Return the mean over all pictures."""
        return self.mean_value / self.weight
