"""The loader: a batch is a slice of a seeded permutation of an in-memory data set, so two integers are its state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vgg_lightning.base.seeds import derive_seed

Batch = tuple[Tensor, Tensor]


class Share(NamedTuple):
    """How much of a batch is here."""

    own: int  # pictures that count here, the first ones; others may follow that count in another process
    total: int  # pictures of the batch in all processes
    weight: float = 1.0  # of the mean loss over `own`: so weighted, its mean over processes is that over the batch


class BatchLoader:
    """Iterates over batches of pictures and labels held in memory.

    The order of an epoch is a function of (seed, epoch), and batch k is slice k of it: nothing depends on
    what ran before, so a loader restored from `state_dict` goes on with the very next batch. Lightning
    calls `set_epoch` (through `sampler`) at the start of every epoch.

    Args:
        images: uint8 (N, 1, 28, 28), on any device: batches are made there.
        labels: int64 (N,), on the same one.
        batch_size: examples in a batch, over all ranks; the last batch of an epoch may be smaller.
        shuffle: a new order every epoch; otherwise the order of the data.
        seed: of the order.
        rank: of this process.
        world_size: number of processes; each gets every `world_size`-th example of a batch. Where that leaves one
            of them with less than `fewest`, it gets others on top, which `share` does not count.
        fewest: examples in the batch of a process at least, if there are several processes.
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
    ) -> None:
        self.images, self.labels = images, labels
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.fewest = fewest if world_size > 1 else 0
        self.epoch = 0
        self.position = 0
        self._start = 0
        self.indices = torch.arange(0)  # of the pictures in the batch last read
        self.share = Share(0, 0)  # of that batch
        self.sampler, self.batch_sampler = self, None  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch that the next iteration reads, from its first batch if it is another one."""
        if epoch != self.epoch:
            self.epoch, self._start = epoch, 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(len(self.labels) / self.batch_size)

    def order(self) -> Tensor:
        """Return the indices of the current epoch, int64 (N,), where the pictures are; the same on every device."""
        if not self.shuffle:
            return torch.arange(len(self.labels), device=self.labels.device)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return torch.randperm(len(self.labels), generator=generator).to(self.labels.device)

    def __iter__(self) -> Iterator[Batch]:
        """Yield (images, labels); the first batch after `load_state_dict` is the one that was due."""
        self.position, self._start = self._start, 0
        order = self.order()
        while self.position < len(self):
            begin = self.position * self.batch_size
            whole = order[begin : begin + self.batch_size]
            self.indices = whole[self.rank :: self.world_size]
            self.share = Share(own := len(self.indices), len(whole), own * self.world_size / len(whole))
            if len(self.indices) < self.fewest:
                self.indices = torch.cat([self.indices, whole[self.rank + 1 :], whole.repeat(self.fewest)])[
                    : self.fewest
                ]
            self.position += 1
            yield self.images[self.indices], self.labels[self.indices]

    def state_dict(self) -> dict[str, int]:
        """Return epoch and number of batches read in it."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the loader was that gave `state`."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._start = self.position % len(self)


def in_order(ranks: Sequence[Sequence[Batch]]) -> Sequence[Batch]:
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
