"""Batch normalisation written with tensor operations, to be read along with the paper; equal to `nn.BatchNorm1d/2d`.

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", https://arxiv.org/abs/1502.03167, algorithms 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Shift and scale each feature to mean 0 and variance 1, then to a learnt mean and scale.

    In training, mean and variance are those of the batch, and moving averages of them are kept; in evaluation
    the moving averages serve, so an image's result does not depend on the rest of its batch.
    The state dict has the keys of `nn.BatchNorm2d`: weights go from one to the other and back.

    Args:
        num_features: size of dimension 1: features of (N, C), channels of (N, C, H, W).
        eps: added to the variance, so that a constant feature is not divided by zero.
        momentum: the new value's share of the moving averages; the old one keeps 1 - momentum, which some
            texts call the momentum (.9 there is .1 here).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))  # gamma in the paper
        self.bias = nn.Parameter(torch.zeros(num_features))  # beta in the paper
        # Buffers move with .to(device) and are saved, but no optimizer changes them.
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C) or (N, C, H, W).

        Raises:
            ValueError: if `x` has another number of dimensions, or one value per feature in training.
        """
        if x.dim() not in (2, 4):
            raise ValueError(f"expected (N, C) or (N, C, H, W), got {x.dim()} dimensions")
        mean, variance = self._batch_statistics(x) if self.training else (self.running_mean, self.running_var)
        normalised = (x - _per_feature(mean, x)) / torch.sqrt(_per_feature(variance, x) + self.eps)
        return _per_feature(self.weight, x) * normalised + _per_feature(self.bias, x)

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        if count < 2:
            raise ValueError("expected more than one value per feature in training")
        others = [dim for dim in range(x.dim()) if dim != 1]  # the batch and every place of the image
        mean = x.mean(dim=others)
        variance = ((x - _per_feature(mean, x)) ** 2).mean(dim=others)
        self._move_averages(mean.detach(), variance.detach(), count)
        return mean, variance

    def _move_averages(self, mean: Tensor, variance: Tensor, count: int) -> None:
        # The batch is a sample of the data: count - 1 makes its variance an unbiased estimate of the data's.
        unbiased = variance * count / (count - 1)
        self.running_mean.mul_(1 - self.momentum).add_(self.momentum * mean)
        self.running_var.mul_(1 - self.momentum).add_(self.momentum * unbiased)
        self.num_batches_tracked.add_(1)


def _per_feature(values: Tensor, x: Tensor) -> Tensor:
    """Reshape (C,) such that it meets dimension 1 of `x`: (1, C) or (1, C, 1, 1)."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
