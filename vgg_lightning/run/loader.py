"""A DataLoader whose batches are a function of (seed, epoch, position), so that a run can resume at any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.seeds import derive_seed, place_of, seed_all
from vgg_lightning.run import collectives


class Draw(NamedTuple):
    """The examples of a batch, and the seed of what is drawn while they are read."""

    seed: int
    indices: list[int]


class Order(Sampler[Draw]):
    """The batches of an epoch. Lightning calls `set_epoch`, which it looks for in `sampler`."""

    def __init__(self, examples: int, batch_size: int, shuffle: bool, seed: int, drop_last: bool) -> None:
        self.examples, self.batch_size, self.shuffle, self.seed, self.drop_last = (
            *(examples, batch_size, shuffle),
            *(seed, drop_last),
        )
        self.epoch = self.start = 0
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another one begins with its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.examples // self.batch_size if self.drop_last else -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        start, self.start = self.start, 0
        order = torch.arange(self.examples)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
            order = torch.randperm(self.examples, generator=generator)
        for position in range(start, len(self)):
            begin = position * self.batch_size
            yield Draw(derive_seed(self.seed, self.epoch, position), order[begin : begin + self.batch_size].tolist())


class Seeded(Dataset[Any]):
    """Reads the batches of a data set, seeding each."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, draw: Draw) -> list[Any]:
        """Return the examples of one batch."""
        seed_all(draw.seed)
        read = getattr(self.dataset, "__getitems__", None)
        return list(read(draw.indices)) if read else [self.dataset[index] for index in draw.indices]


class ResumableLoader(DataLoader[Any]):
    """A DataLoader that a resumed run reads on from the very next batch, whatever happened before.

    Batch k of an epoch is a function of (seed, epoch, k), also where the data set draws random numbers: Python's,
    NumPy's and torch's generators are seeded before each batch is read, in the worker process if there are any.

    Args:
        dataset: with `__len__` and `__getitem__`.
        batch_size: examples in a batch.
        shuffle: a new order every epoch; otherwise that of the data set.
        seed: of the order, and of what the data set draws.
        drop_last: leave out a last batch that is smaller.
        options: of DataLoader, such as `num_workers` and `collate_fn`; neither a sampler nor a generator.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        **options: Any,
    ) -> None:
        self.position = 0
        self._order = Order(len(dataset), batch_size, shuffle, seed, drop_last)
        super().__init__(Seeded(dataset), batch_sampler=cast(Any, self._order), **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield batches; the first one after `load_state_dict` is the one that was due.

        Raises:
            UserError: if several processes train.
        """
        if collectives.several():
            raise UserError("ResumableLoader serves a single process: each of several would read all batches")
        self.position = self._order.start
        for batch in super().__iter__():
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return epoch and number of batches read in it."""
        return {"epoch": self._order.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where the loader was that gave the state."""
        self._order.epoch, self.position = place_of(state_dict)
        self._order.start = self.position % len(self._order)
