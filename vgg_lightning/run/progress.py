"""The progress of a run: a line after every epoch, and a progress bar on a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from tqdm import tqdm

from vgg_lightning.base.progress import bar_colour
from vgg_lightning.base.text import duration, minutes, short
from vgg_lightning.run.ending import plan
from vgg_lightning.run.lightning_private import batches_begun, batches_of_cut_epoch

LINE_EVERY = 30.0  # seconds from one line to the next where there is no bar
MOST_LINES = 20  # of one epoch, test or prediction


class EpochLines(Callback):
    """Prints a line after every epoch: metrics, seconds, and the time left.

    Args:
        metrics: which to print, if they are logged; by default all that are logged once an epoch.
    """

    def __init__(self, metrics: Sequence[str] | None = None) -> None:
        self.metrics = metrics
        self._begin = 0.0
        self._validated = False
        self._first = self._done = 0  # batches of the whole training: before this process, and by now

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, maybe in the middle of an epoch."""
        self._begin, self._first = time.monotonic(), batches_begun(trainer)
        self._done = self._first

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the batches; the means of the epoch are known only after this hook."""
        self._done = batches_begun(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that this epoch has a validation."""
        self._validated = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the epoch before."""
        self._print(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the last epoch."""
        self._print(trainer)

    def _print(self, trainer: L.Trainer) -> None:
        if self._done == self._first or not trainer.is_global_zero:
            return
        seconds = (time.monotonic() - self._begin) / (self._done - self._first) * trainer.num_training_batches
        logged = trainer.callback_metrics
        names = [name for name in logged if not name.endswith("_step")] if self.metrics is None else self.metrics
        if not self._validated:  # what is logged is of an epoch before
            names = [name for name in names if not name.startswith("val_")]
        self._validated = False
        metrics = [f"{name} {short(float(logged[name]))}" for name in names if name in logged]
        whole = plan(trainer)
        total = f"/{whole.epochs}" if whole.epochs is not None else ""
        cut = batches_of_cut_epoch(trainer)
        part = f", {cut} of {trainer.num_training_batches} batches" if cut else ""
        times = [f"{seconds:.0f} s an epoch"]
        if whole.batches is not None and not cut:
            each = (time.monotonic() - self._begin) / (self._done - self._first)
            times.append(f"{minutes(each * (whole.batches - self._done))} left")
        # tqdm.write does not tear a bar, and is print where there is none
        tqdm.write(f"epoch {trainer.current_epoch}{total}{part}: {', '.join(metrics + times)}")
        sys.stdout.flush()


class Bar(TQDMProgressBar):
    """Lightning's bar, without the metrics: they are in the lines."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, int | str]:  # type: ignore[override]
        """Return nothing to show behind the bar."""
        return {}

    def init_train_tqdm(self) -> Tqdm:
        """Return Lightning's bar in colour."""
        return _coloured(super().init_train_tqdm())

    def init_validation_tqdm(self) -> Tqdm:
        """Return Lightning's bar in colour."""
        return _coloured(super().init_validation_tqdm())

    def init_test_tqdm(self) -> Tqdm:
        """Return Lightning's bar in colour."""
        return _coloured(super().init_test_tqdm())

    def init_predict_tqdm(self) -> Tqdm:
        """Return Lightning's bar in colour."""
        return _coloured(super().init_predict_tqdm())


def _coloured(bar: Tqdm) -> Tqdm:
    bar.colour = bar_colour(sys.stdout)
    return bar


class Lines(ProgressBar):
    """Stands where Lightning would put a bar, which a file or a pipe would show as noise.

    It says nothing of what is soon done. Of long work it prints a line now and then, with the time left.

    Args:
        seconds: at least, from one line to the next.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self._begin = self._said = 0.0
        self._seen = 0  # batches since then

    def disable(self) -> None:
        """Do nothing: Lightning calls it where this is not the first process, which `_say` looks at itself."""

    def enable(self) -> None:
        """Do nothing: there is no bar to show."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock: a run that is resumed within an epoch does not start that epoch."""
        self._begin = self._said = time.monotonic()
        self._seen = 0

    on_train_epoch_start = on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line of a long epoch."""
        self._say(trainer, f"epoch {trainer.current_epoch + 1}", batch_idx + 1, [trainer.num_training_batches])

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print a line of a long validation."""
        self._say(trainer, "validation", batch_idx + 1, trainer.num_val_batches)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print a line of a long test."""
        self._say(trainer, "test", batch_idx + 1, trainer.num_test_batches)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print a line of a long prediction."""
        self._say(trainer, "prediction", batch_idx + 1, trainer.num_predict_batches)

    def _say(self, trainer: L.Trainer, what: str, done: int, totals: Sequence[float]) -> None:
        now, total = time.monotonic(), sum(totals)  # there is one loader of each kind
        self._seen += 1
        each = (now - self._begin) / self._seen
        known = math.isfinite(total)  # else nobody knows how many batches there are
        if now - self._said < max(self.seconds, each * total / MOST_LINES if known else 0.0):
            return
        self._said = now
        if trainer.is_global_zero:
            left = f" of {total}, {duration(each * (total - done))} left" if known else ""
            print(f"{what}: batch {done}{left}", flush=True)


def progress_bar(refresh_rate: int = 10) -> ProgressBar:
    """Return a bar for a terminal that moves every so many batches, lines for a file or a pipe.

    Lightning draws its bars on standard output.
    """
    return Bar(refresh_rate=refresh_rate) if sys.stdout.isatty() else Lines(LINE_EVERY)
