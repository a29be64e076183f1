"""Handles signals between the batches of every Trainer method except training."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from vgg_lightning.run import collectives, signals
from vgg_lightning.run.lightning_private import leave_signals_alone


def stop_together(note: str) -> None:
    """Raise Interrupted in all processes if a signal has come to one of them."""
    (signum,) = collectives.agree(signals.pending())
    if signum:
        signals.obey(signum, note)


class StopOnSignal(Callback):
    """Takes the signals over from Lightning, which would end with code 0 or 1, or not at all.

    Args:
        note: what to say when a test or prediction is stopped.
        saves: a LastCheckpoint saves and stops in training.
    """

    def __init__(self, note: str = "", saves: bool = False) -> None:
        self.note = note
        self.saves = saves

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep Lightning's ways with a SIGTERM out: between processes it broadcasts one from within its handler."""
        if collectives.several():
            leave_signals_alone(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over."""
        signals.take_over()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop, unless training saves first."""
        if not self.saves:
            stop_together("nothing is saved")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over."""
        signals.take_over()

    on_test_start = on_predict_start = on_validation_start

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop, unless training has to save first."""
        if trainer.state.fn != TrainerFn.FITTING or not self.saves:
            stop_together(self.note)

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop."""
        stop_together(self.note)

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop."""
        stop_together(self.note)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give back."""
        signals.release()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give back, and obey what came after the last batch."""
        signals.release()
        signals.stop_if_asked(self.note)
