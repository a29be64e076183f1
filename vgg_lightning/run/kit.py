"""The run kit for other Lightning projects (docs/kit.md)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.errors import UserError
from vgg_lightning.run.checkpoints.callbacks import BestCheckpoint, LastCheckpoint, Restoring
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.checkpoints.locate import check_writable, newest_valid
from vgg_lightning.run.exact import SeedSteps
from vgg_lightning.run.exits import exit_code
from vgg_lightning.run.guards.finite import FiniteGuard
from vgg_lightning.run.lightning_private import lean
from vgg_lightning.run.loader import ResumableLoader
from vgg_lightning.run.lock import FolderLock
from vgg_lightning.run.loggers.choice import run_loggers
from vgg_lightning.run.progress import EpochLines, progress_bar
from vgg_lightning.run.stop import StopOnSignal

__all__ = ["ResumableLoader", "RunKit", "exit_code", "run_callbacks"]

Mode = Literal["max", "min"]


class RunKit:
    """A run in a folder: new if there is no checkpoint in it, otherwise resumed from the newest valid one.

    The folder is held until the Trainer has done its work, or this process ends: no other one writes there meanwhile.

    Args:
        folder: of the run. It gets checkpoints/, metrics.csv and TensorBoard's events.
        monitor: the logged metric of the validation that decides which epoch is kept as best.ckpt; None keeps none.
        mode: "min" if less of it is better, else "max".
        checkpoint_every_n_steps: steps between checkpoints within an epoch; 0 is none.
        checkpoint_minutes: minutes between them; 0 is none.
        seed: of what a step draws, such as dropout.
        resume: the command to resume, printed when a signal stops the run; by default the command of this process.
        progress: whether to print a line after every epoch, and a bar on a terminal.

    Attributes:
        folder: of the run.
        newest: the checkpoint to resume from, for `Trainer.fit(ckpt_path=...)`, or None.

    Raises:
        UserError: if the folder cannot be written or is in use, or an argument is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        monitor: str | None = "val_loss",
        mode: Mode = "min",
        *,
        checkpoint_every_n_steps: int = 0,
        checkpoint_minutes: float = 0.0,
        seed: int = 0,
        resume: str | None = None,
        progress: bool = True,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        lock = FolderLock(self.folder)
        lock.acquire()
        self.newest = newest_valid(self.folder)
        self._metrics = [monitor] if monitor else []
        note = f"resume with: {resume or shlex.join(['python', *sys.orig_argv[1:]])}"
        self._callbacks = [
            HoldFolder(lock),
            SeedSteps(seed),
            FiniteGuard(metrics=self._metrics),
            *run_callbacks(
                self.folder, note, monitor, mode, checkpoint_every_n_steps, checkpoint_minutes, progress=progress
            ),
        ]

    def plugs(self, *callbacks: Callback) -> dict[str, Any]:
        """Return arguments for Lightning's Trainer: `callbacks` and those of the kit, `logger` and `plugins`.

        Args:
            callbacks: of your own.
        """
        step = None
        if self.newest:  # mapped, so that no more than the number is read; the file has been verified
            try:
                step = int(torch.load(self.newest, map_location="cpu", mmap=True, weights_only=True)["global_step"])
            except Exception as error:  # whatever another program has written there
                raise UserError(f"{self.newest} is refused: it does not say how far its run was") from error
        return {
            "callbacks": [*callbacks, *lean(self._callbacks)],
            "logger": run_loggers(self.folder, step),
            "plugins": [VerifiedCheckpointIO()],
        }


class HoldFolder(Callback):
    """Holds the folder of a run while its Trainer is at work.

    Args:
        lock: of the folder.
    """

    def __init__(self, lock: FolderLock) -> None:
        self.lock = lock

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hold it."""
        self.lock.begin()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let it go."""
        self.lock.end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let it go."""
        self.lock.end()


def run_callbacks(
    folder: Path,
    note: str,
    monitor: str | None,
    mode: Mode = "min",
    every_n_steps: int = 0,
    minutes: float = 0.0,
    *,
    saves: bool = True,
    progress: bool = True,
    metrics: Sequence[str] | None = None,
) -> list[Callback]:
    """Return the callbacks that stop, save and show a run.

    Args:
        folder: of the run.
        note: what to say when a signal stops it: how to resume it.
        monitor: the metric that decides which epoch is the best; None if there is none.
        mode: "min" if less of it is better, else "max".
        every_n_steps: steps between checkpoints within an epoch; 0 is none.
        minutes: minutes between them; 0 is none.
        saves: whether there are checkpoints.
        progress: whether to show how far the run is.
        metrics: of the line after every epoch; by default all that are logged.
    """
    callbacks: list[Callback] = [StopOnSignal(note, saves), Restoring()]
    if saves:
        checkpoints = folder / "checkpoints"
        callbacks += [BestCheckpoint(checkpoints, monitor, mode)] if monitor else []
        callbacks += [LastCheckpoint(checkpoints, every_n_steps, minutes, note)]
    return [*callbacks, *([EpochLines(metrics), progress_bar()] if progress else [])]
