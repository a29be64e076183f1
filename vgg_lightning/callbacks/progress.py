"""Where a run stands: a line after every epoch, and on a terminal a bar below the lines."""

from __future__ import annotations

import sys
import time

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar, TQDMProgressBar
from tqdm import tqdm


class EpochLines(Callback):
    """Prints a line after every epoch: metrics, seconds, and the time left."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._done = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begin, self._done = time.monotonic(), 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the epoch; its means are known only after this hook."""
        self._done += 1

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the epoch before."""
        self._print(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the last epoch."""
        self._print(trainer)

    def _print(self, trainer: L.Trainer) -> None:
        if not self._done or not trainer.is_global_zero:
            return
        seconds = (time.monotonic() - self._begin) / self._done
        metrics = ", ".join(
            f"{name} {float(trainer.callback_metrics[name]):.4f}"
            for name in ("train_loss", "train_acc", "val_loss", "val_acc", "val_acc_tta")
            if name in trainer.callback_metrics
        )
        left = seconds * ((trainer.max_epochs or 0) - trainer.current_epoch)
        tqdm.write(  # which does not tear a bar, and is print where there is none
            f"epoch {trainer.current_epoch}/{trainer.max_epochs}: {metrics}, "
            f"{seconds:.0f} s an epoch, {left / 60:.1f} min left"
        )
        sys.stdout.flush()


class Bar(TQDMProgressBar):
    """Lightning's bar, without the metrics: they are in the lines."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, int | str]:  # type: ignore[override]
        """Return nothing to show behind the bar."""
        return {}


class NoBar(ProgressBar):
    """Stands where Lightning would put a bar, which a file or a pipe would show as noise."""

    def disable(self) -> None:
        """Do nothing: there is no bar to hide."""

    def enable(self) -> None:
        """Do nothing: there is no bar to show."""


def progress_bar(refresh_rate: int = 10) -> ProgressBar:
    """Return a bar for a terminal that moves every so many batches, none for a file or a pipe."""
    return Bar(refresh_rate=refresh_rate) if sys.stderr.isatty() else NoBar()
