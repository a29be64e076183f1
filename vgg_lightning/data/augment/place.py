"""The position of a batch in a run, on which its augmentation depends."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Place(NamedTuple):
    """Where in a run a batch stands, so that a resumed run augments it as the unbroken one did."""

    seed: int
    epoch: int
    batch: int
    rank: int
    indices: Tensor  # of its images in the training set, int64 (N,)
    size: int  # of the training set
