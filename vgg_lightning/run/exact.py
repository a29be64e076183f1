"""Seeds each step, so that a resumed run draws the same random numbers as an uninterrupted one."""

from __future__ import annotations

import io
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.seeds import derive_seed, seed_all
from vgg_lightning.run.lightning_private import begin_epoch

TRAIN, EPOCH, VALIDATION = range(1, 4)


class SeedSteps(Callback):
    """Seeds Python, NumPy and torch before each batch by (seed, epoch, batch, rank), whatever was drawn before.

    Args:
        seed: another one gives other dropout.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse options that could be saved and not be read again, before anything is trained."""
        for owner in (pl_module, getattr(trainer, "datamodule", None)):
            if stage == "fit" and owner is not None:
                _check_options(owner)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed what the epoch begins with, such as its order."""
        self._seed(pl_module, 0, EPOCH)
        begin_epoch(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed a step."""
        self._seed(pl_module, batch_idx, TRAIN)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed a step of validation."""
        self._seed(pl_module, batch_idx, VALIDATION + dataloader_idx)

    def _seed(self, module: L.LightningModule, batch: int, purpose: int) -> None:
        seed_all(derive_seed(self.seed, module.current_epoch, batch, module.global_rank, purpose), module.device)


def _check_options(owner: Any) -> None:
    for name, value in getattr(owner, "hparams", {}).items():
        stream = io.BytesIO()
        try:
            torch.save(value, stream)
            torch.load(io.BytesIO(stream.getvalue()), weights_only=True)
        except Exception as error:
            raise UserError(
                f"{type(owner).__name__} saves the option {name} = {repr(value)[:60]}, which is not a plain value, and "
                f"a checkpoint with it is not opened again: leave it out, with save_hyperparameters(ignore=[{name!r}])"
            ) from error
