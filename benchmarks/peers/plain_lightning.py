"""Lightning as its documentation writes it: torchvision's data set read sample by sample, `self.log`, a Trainer.

Two worker processes, which stay: Lightning's own advice for two cores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from benchmarks.peers.clock import Clock
from benchmarks.peers.plain_torch import optimizer_of
from benchmarks.peers.work import DATA_DIR, Work


class Model(L.LightningModule):
    """The module of the documentation."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work, self.network = work, work.network()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        x, y = batch
        loss = nn.functional.cross_entropy(self.network(x), y)
        self.log("train_loss", loss)
        return loss

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the labels."""
        labels: Tensor = self.network(batch[0]).argmax(dim=1)
        return labels

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return optimizer_of(self.work, self.network)


def _loader(work: Work, train: bool) -> DataLoader[Any]:
    steps: list[Any] = [] if work.image_size == 28 else [transforms.Resize(work.image_size)]
    data = FashionMNIST(str(DATA_DIR), train=train, transform=transforms.Compose([*steps, transforms.ToTensor()]))
    workers = min(os.cpu_count() or 1, 2)
    return DataLoader(data, work.batch_size, shuffle=train, num_workers=workers, persistent_workers=True)


def train(work: Work, clock: Clock) -> None:
    """Run `Trainer.fit`."""
    clock.watch_torch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(max_epochs=1, default_root_dir=folder, accelerator="cpu")
        trainer.fit(Model(work), _loader(work, train=True))


def batches(work: Work) -> Iterator[Tensor]:
    """Yield what the DataLoader makes."""
    loader = _loader(work, train=True)
    while True:
        for x, _ in loader:
            yield x


def predict(work: Work) -> Callable[[], Any]:
    """Return `Trainer.predict` of all test images."""
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model, loader = Model(work), _loader(work, train=False)
    return lambda: torch.cat(trainer.predict(model, loader))  # type: ignore[arg-type]
