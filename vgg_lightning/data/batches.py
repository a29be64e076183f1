"""Batches, and the loader that makes them from a data set in memory; its state is two integers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.seeds import derive_seed, place_of


class Share(NamedTuple):
    """The share of a batch that a process has.

    Attributes:
        own: number of images that count in this process, the first ones; the others fill the batch up and count in
            another process.
        total: number of images in the batch over all processes.
        weight: factor of the mean loss over `own`: the mean of the weighted losses over all processes is the mean
            loss of the whole batch.
    """

    own: int
    total: int
    weight: float = 1.0


class Batch(NamedTuple):
    """A batch of images with everything that belongs to it.

    It is a tuple, so Lightning moves it to a device, and `images, labels, *_ = batch` unpacks it.

    Attributes:
        images: uint8 (N, 1, 28, 28) as the loader yields them; float32 (N, in_channels, image_size, image_size) once
            they are preprocessed.
        labels: int64 (N,); after mixup or CutMix the shares of the classes, float32 (N, num_classes).
        indices: places of the images in their split, int64 (N,); empty if they are unknown.
        share: how many of the images count in this process.
        epoch: number of the epoch, from 0.
        position: number of the batch in its epoch, from 1.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    share: Share
    epoch: int = 0
    position: int = 0

    @classmethod
    def of(cls, batch: Any) -> Batch:
        """Return `batch` itself; or a `Batch` that all counts, of a pair (images, labels) or of images alone.

        The labels of images alone are -1.

        Raises:
            UserError: if it is something else.
        """
        if isinstance(batch, cls):
            return batch
        parts = [batch] if isinstance(batch, Tensor) else list(batch) if isinstance(batch, tuple | list) else []
        if len(parts) not in (1, 2) or not all(isinstance(part, Tensor) and part.ndim for part in parts):
            raise UserError(f"a loader gives batches of the type {type(batch).__name__}: give pairs (images, labels)")
        images, labels = parts if len(parts) == 2 else (parts[0], parts[0].new_full((len(parts[0]),), -1).long())
        return cls(images, labels, torch.arange(0), Share(len(labels), len(labels)))


class BatchLoader:
    """Iterates over batches of images and labels held in memory.

    A batch is a slice of a seeded permutation: the order of an epoch is a function of (seed, epoch), and nothing
    depends on what ran before. A loader restored from `state_dict` therefore resumes with the very next batch.
    Lightning calls `set_epoch` (through `sampler`) at the start of every epoch.

    Args:
        images: uint8 (N, 1, 28, 28), on any device; batches are made on that device.
        labels: int64 (N,), on the same device.
        batch_size: images in a batch, over all processes; the last batch of an epoch may be smaller.
        shuffle: whether every epoch has a new order; otherwise it is `fixed`.
        seed: seed of the order.
        rank: number of this process.
        world_size: number of processes; each gets every `world_size`-th image of a batch.
        fewest: smallest number of images in the batch of a process; alone, it has no more than `batch_size`. One that
            would get fewer gets images of the other processes or batches as well, which its `share` does not count.
        fixed: order if it is not shuffled, int64 (N,); by default that of the data.

    Attributes:
        augment: what its data module does to the batches on the device, names as in `data.augment`; empty without one.
        preprocessing: how it normalises them, in words; empty without one.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        fewest: int = 0,
        fixed: Tensor | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.fewest = fewest if world_size > 1 else min(fewest, batch_size)
        self.fixed = torch.arange(len(labels)) if fixed is None else fixed
        self.augment: Sequence[str] = ()
        self.preprocessing = ""
        self.epoch = 0
        self.position = 0
        self._start = 0
        self.sampler, self.batch_sampler = self, None  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch that the next iteration reads, from its first batch if it is another one."""
        if epoch != self.epoch:
            self.epoch, self._start = epoch, 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(len(self.labels) / self.batch_size)

    def order(self) -> Tensor:
        """Return the indices of the current epoch, int64 (N,), where the images are; the same on every device."""
        if not self.shuffle:
            return self.fixed.to(self.labels.device)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return torch.randperm(len(self.labels), generator=generator).to(self.labels.device)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches; the first one after `load_state_dict` is the one that was due."""
        self.position, self._start = self._start, 0
        order = self.order()
        while self.position < len(self):
            begin = self.position * self.batch_size
            whole = order[begin : begin + self.batch_size]
            indices = whole[self.rank :: self.world_size]
            share = Share(own := len(indices), len(whole), own * self.world_size / len(whole))
            if own < self.fewest:
                indices = torch.cat([indices, whole[self.rank + 1 :], order, whole.repeat(self.fewest)])[: self.fewest]
            self.position += 1
            yield Batch(self.images[indices], self.labels[indices], indices, share, self.epoch, self.position)

    def state_dict(self) -> dict[str, int]:
        """Return epoch and number of batches read in it."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume where the loader was that gave `state`."""
        self.epoch, self.position = place_of(state)
        self._start = self.position % len(self)


def in_order(ranks: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> Sequence[tuple[Tensor, Tensor]]:
    """Return batches in the order of the data, put together from the shares of all processes.

    Args:
        ranks: for each process, its share of every batch: tensors whose first dimensions are its examples.
    """
    if len(ranks) == 1:
        return ranks[0]
    return [
        (_interleave([share[0] for share in shares]), _interleave([share[1] for share in shares]))
        for shares in zip(*ranks, strict=True)
    ]


def _interleave(shares: Sequence[Tensor]) -> Tensor:
    whole = torch.cat(list(shares))
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole
