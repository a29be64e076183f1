"""Progress for an output that is no terminal: one line an epoch in place of a bar."""

from __future__ import annotations

import time

import lightning as L
from lightning.pytorch.callbacks import ProgressBar


class ProgressLines(ProgressBar):
    """Prints a line after every epoch: metrics, seconds, and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self._begin = 0.0
        self._done = 0

    def disable(self) -> None:
        """Do nothing: there is no bar to hide."""

    def enable(self) -> None:
        """Do nothing: there is no bar to show."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begin, self._done = time.monotonic(), 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the epoch; its means are logged only after this hook."""
        self._done += 1

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the epoch before."""
        if self._done:
            self._print(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the last epoch."""
        if self._done:
            self._print(trainer)

    def _print(self, trainer: L.Trainer) -> None:
        seconds = (time.monotonic() - self._begin) / self._done
        metrics = ", ".join(
            f"{name} {float(trainer.callback_metrics[name]):.4f}"
            for name in ("train_loss", "train_acc", "val_loss", "val_acc")
            if name in trainer.callback_metrics
        )
        left = seconds * ((trainer.max_epochs or 0) - trainer.current_epoch)
        if trainer.is_global_zero:
            print(
                f"epoch {trainer.current_epoch}/{trainer.max_epochs}: {metrics}, "
                f"{seconds:.0f} s an epoch, {left / 60:.1f} min left",
                flush=True,
            )
