"""The TensorBoard logger of a run: hyperparameters with the final metrics, and each step once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summary

from vgg_lightning.base.files import write_whole
from vgg_lightning.base.progress import say
from vgg_lightning.run.lightning_private import begin_new_file
from vgg_lightning.run.tensorboard_private import add_summary, writes_events

HPARAMS_METRICS = ("val_acc", "val_loss", "test_acc", "test_loss")


class RunTensorBoard(TensorBoardLogger):
    """TensorBoardLogger whose HPARAMS tab shows the metrics that the run logs, instead of a -1.

    Where nothing can be written, as on a full disk, that is said once, and training continues.

    Args:
        step: the run resumes here; TensorBoard drops what was logged at this step and later.
        metrics: that the HPARAMS tab shows.
        kwargs: of TensorBoardLogger.
    """

    def __init__(self, step: int | None = None, metrics: Sequence[str] = HPARAMS_METRICS, **kwargs: Any) -> None:
        super().__init__(**kwargs, default_hp_metric=False, log_graph=step is None, purge_step=step)
        self.metrics = tuple(metrics)
        self._failed = False
        self._draws = step is None
        quiet_writer_threads()

    @property
    def experiment(self) -> SummaryWriter:
        """The writer. Lightning asks for it before every fit and test; on a full disk, nothing is written by it."""
        try:
            writer: SummaryWriter = super().experiment
            return writer
        except OSError as error:
            self._note(error)
            return _Nowhere()  # type: ignore[return-value]

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Write the hyperparameters, and the names of the metrics whose curves are their result."""
        self._try(self._log_hyperparams, params, metrics, step)

    def _log_hyperparams(self, params: Any, metrics: Any, step: int | None) -> None:
        super().log_hyperparams(params, metrics, step)
        plain = {k: v for k, v in dict(params).items() if isinstance(v, str | int | float | bool)}
        for summary in hparams_summary(plain, dict.fromkeys(self.metrics, 0.0)):  # type: ignore[no-untyped-call]
            add_summary(self.experiment, summary)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Draw the network once, unless it lies in parts in several processes: that cannot be traced.

        The test at the end of a run would draw it again, and cannot if it is compiled.
        """
        if self._draws and not any(hasattr(weight, "to_local") for weight in model.parameters()):
            self._try(super().log_graph, model, input_array)
        self._draws = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write scalars."""
        self._try(super().log_metrics, metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Flush, and write hparams.yaml where there is none yet."""
        self._try(self._save)

    def _save(self) -> None:
        self.experiment.flush()
        file = Path(self.log_dir) / self.NAME_HPARAMS_FILE
        if file.parent.is_dir() and (file.is_symlink() or not file.is_file()):
            write_whole(file, yaml.safe_dump(_plain(self.hparams)))

    def finalize(self, status: str) -> None:
        """Close."""
        self._try(super().finalize, status)

    def write(self, log: Callable[[SummaryWriter], None]) -> None:
        """Let `log` write what Lightning's logger has no method for."""
        self._try(lambda: log(self.experiment))

    def _try(self, log: Callable[..., None], *args: Any) -> None:
        """Let training outlive a full disk: say it once, and write what comes later into a new file of events."""
        try:
            log(*args)
        except (OSError, ValueError) as error:  # Lightning wraps the one in the other
            reason = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(reason, OSError):
                raise
            self._note(reason)

    def _note(self, error: OSError) -> None:
        if not self._failed:
            say(f"{self.log_dir}: TensorBoard's file is not written: {error.strerror}")
        self._failed = True
        begin_new_file(self)
        self._remove_empty()

    @property
    def unsaved(self) -> str:
        """What could not be written, or nothing."""
        return f"some of TensorBoard's files in {self.log_dir}" if self._failed else ""

    def _remove_empty(self) -> None:
        """Remove the files of this process into which nothing was written."""
        with contextlib.suppress(OSError):
            for file in Path(self.log_dir).glob(f"events.out.tfevents.*.{os.getpid()}.*"):
                if not file.stat().st_size:
                    file.unlink()


class _Nowhere:
    """A writer that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: _Nowhere()


def _plain(value: Any) -> Any:
    """Return options as plain values that any reader of YAML takes."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def write(trainer: L.Trainer, log: Callable[[SummaryWriter], None]) -> None:
    """Let `log` write to the TensorBoard of a run, if it has one. Call it on the first process alone."""
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.write(log)
        elif isinstance(logger, TensorBoardLogger):
            log(logger.experiment)


def quiet_writer_threads() -> None:
    """Keep the traceback of TensorBoard's thread off the screen: the logger says what it says, in one line."""
    original = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and writes_events(args.thread)):
            original(args)

    threading.excepthook = hook
