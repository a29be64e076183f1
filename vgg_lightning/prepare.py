"""What a run saves and shows: one callback a file, put together here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
)

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.run.checkpoints.callbacks import BestCheckpoint, LastCheckpoint, resume_command
from vgg_lightning.run.hooks import lean
from vgg_lightning.run.progress import EpochLines, progress_bar
from vgg_lightning.run.stop import StopOnSignal
from vgg_lightning.show import show_callbacks
from vgg_lightning.show.class_table import ClassTable
from vgg_lightning.show.report import RunReport

if TYPE_CHECKING:
    from vgg_lightning.data.datamodule import FashionMNISTDataModule


def fit_callbacks(
    run_folder: Path,
    data: FashionMNISTDataModule,
    trainer: dict[str, Any],
    early_stopping: int,
    every_n_steps: int,
    minutes: float,
    show: str | Sequence[str] | None = "none",
) -> list[Callback]:
    """Return the callbacks of `vgg-lightning fit`.

    Args:
        run_folder: where the run writes.
        data: decides whether there is a val_acc to watch.
        trainer: the options of the Trainer, which can switch parts off.
        early_stopping: epochs without a better val_acc after which to stop; 0 never stops early.
        every_n_steps: steps between checkpoints within an epoch; 0 is none.
        minutes: minutes between them; 0 is none.
        show: what to show in TensorBoard beside the curves (see `show`).
    """
    validates = bool(data.hparams["val_size"]) and trainer["limit_val_batches"] != 0
    saves = trainer["enable_checkpointing"] is not False
    callbacks: list[Callback] = [StopOnSignal(resume_command(run_folder), saves), RunReport(run_folder), ClassTable()]
    if saves:
        folder = run_folder / "checkpoints"
        callbacks += [BestCheckpoint(folder)] if validates else []
        callbacks += [LastCheckpoint(folder, every_n_steps, minutes)]
    if trainer["logger"] is not False:
        callbacks += [LearningRateMonitor(logging_interval="step"), *show_callbacks(show)]
    if trainer["enable_progress_bar"] is not False:
        callbacks += [EpochLines(), progress_bar()]
    if early_stopping:
        if not validates:
            give = f"give {option('data.val_size')} 1000 or more"
            raise UserError(f"{option('early_stopping')} needs validation pictures: {give}")
        callbacks.append(EarlyStopping("val_acc", mode="max", patience=early_stopping))
    return lean(callbacks)
