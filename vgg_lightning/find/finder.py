"""fit up to the point where training would begin: model, data and a Trainer that leaves no trace."""

from __future__ import annotations

import contextlib
import csv
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningCLI

from vgg_lightning.base.files import replace
from vgg_lightning.cli.defaults import with_defaults
from vgg_lightning.cli.lightning import VGGLightningCLI, quiet
from vgg_lightning.data.batches import check_agreement


class FinderCLI(VGGLightningCLI):
    """The command line of fit with `find` in the place of training.

    Args:
        options: of fit.
        folder: for what Lightning's finders write on their way; made and removed by the caller.
        steps: optimizer steps that the Trainer must be ready to take.
        find: called with model, data and Trainer.
    """

    def __init__(
        self, options: list[str], folder: str, steps: int, find: Callable[[Any, Any, L.Trainer], None]
    ) -> None:
        self.folder, self.steps, self.find = folder, steps, find
        super().__init__("fit", with_defaults("fit", options))

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build a Trainer without logger, checkpoints, bar and validation."""
        check_agreement(self.datamodule, self.model.hparams)
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        batches = len(self.datamodule.train_dataloader())
        epochs = max(self.config_init["fit"].trainer.max_epochs or 1, math.ceil(self.steps / batches) + 1)
        quietly = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "fast_dev_run"), False)
        whole = {"max_epochs": epochs, "limit_train_batches": 1.0, "limit_val_batches": 0, "max_steps": -1}
        return LightningCLI.instantiate_trainer(self, **quietly, **whole, default_root_dir=self.folder)

    def before_fit(self) -> None:
        """Write nothing."""

    def fit(self, model: Any, datamodule: Any, **kwargs: Any) -> None:
        """Find in place of training."""
        self.find(model, datamodule, self.trainer)

    def after_fit(self) -> None:
        """Write nothing."""


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Give a folder that is gone afterwards, and keep Lightning's remarks off the screen."""
    quiet()
    with tempfile.TemporaryDirectory(prefix="vgg_lightning_find_") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield folder


def write_points(folder: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[float]]) -> Path:
    """Write rows of numbers to NAME.csv and return the file."""
    file = folder / f"{name}.csv"

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *rows])

    replace(file, write)
    return file


def write_plot(folder: Path, name: str, draw: Callable[[Any], None]) -> Path:
    """Let `draw` fill the axes of a new figure, write it to NAME.png and return the file."""
    from matplotlib.figure import Figure  # no pyplot: it would look for a screen

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw(figure.subplots())
    file = folder / f"{name}.png"
    replace(file, lambda part: figure.savefig(part, format="png", dpi=120))
    return file
