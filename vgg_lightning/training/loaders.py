"""Says what a loader leaves out that is given to a Trainer without a data module."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.text import say
from vgg_lightning.data.batches import Batch, BatchLoader


class LoaderNote(Callback):
    """Looks at the first batch of every fit, validation, test or prediction, and says what was not done to it.

    A data module augments and normalises on the device, after its loader. The batches of its loader alone are prepared
    as the model's `preprocess` does it, without augmentation. Images of another loader that are no whole numbers are
    taken as they are, for nobody knows what was done to them; so those that do not look prepared are named.
    """

    def __init__(self) -> None:
        self._looks = True

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Look at the next batch."""
        self._looks = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
        """Look at a batch for training."""
        if self._looks:
            self._look(trainer, pl_module, batch)

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
        """Look at a batch for validation."""
        if self._looks:
            self._look(trainer, pl_module, batch)

    def on_test_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
        """Look at a batch for a test."""
        if self._looks:
            self._look(trainer, pl_module, batch)

    def on_predict_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
        """Look at a batch for a prediction."""
        if self._looks:
            self._look(trainer, pl_module, batch)

    def _look(self, trainer: L.Trainer, module: Any, batch: Any) -> None:
        self._looks = False
        if not trainer.is_global_zero:
            return
        if isinstance(batch, Batch):
            if not batch.images.is_floating_point():
                self._of_module(trainer, module)
            return
        found = Batch.of(batch).images
        if not found.is_floating_point() or not found.numel():
            return
        low, high = (float(value) for value in found.aminmax())
        prepared = low < 0 if module.preprocess.normalize else high <= 1
        if not prepared:
            as_they_are = f"the loader's images, numbers from {low:g} to {high:g}, are taken as they are"
            whole = f"uint8 images would be scaled to 0..1 and {module.preprocess.describe()}"
            say(f"note: {as_they_are}; {whole}, as predict does", sys.stderr)

    def _of_module(self, trainer: L.Trainer, module: Any) -> None:
        loader = trainer.train_dataloader if trainer.training else None
        if not isinstance(loader, BatchLoader):
            return
        own, other = module.preprocess.describe(), loader.preprocessing
        left = [f"its augmentation ({', '.join(loader.augment)}) is left out"] if loader.augment else []
        left += [f"images are {own}, where its own are {other}"] if other and own != other else []
        if left:
            say(f"note: a loader without its data module: {' and '.join(left)}; give the data module", sys.stderr)
