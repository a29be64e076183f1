"""Prepares a run as fit does, but with a Trainer that writes no files."""

from __future__ import annotations

import contextlib
import csv
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.files import replace
from vgg_lightning.cli.defaults import with_defaults
from vgg_lightning.cli.lightning import VGGLightningCLI
from vgg_lightning.data.sizes import Sizes
from vgg_lightning.prepare import Run, prepare
from vgg_lightning.run.session import session


def ready(
    options: list[str],
    folder: str,
    steps: int,
    model: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Return a run that is prepared up to the point where training would begin, and that leaves no trace.

    Args:
        options: of fit, as on the command line.
        folder: for what Lightning's finders write on their way; made and removed by the caller.
        steps: optimizer steps that the Trainer must be ready to take.
        model: options of the model in place of those.
        trainer: options of the Trainer in place of those.
        callbacks: more callbacks of the Trainer.
    """
    arguments = VGGLightningCLI("fit", with_defaults("fit", options)).arguments()
    quietly = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "fast_dev_run"), False)
    whole = {"limit_train_batches": 1.0, "limit_val_batches": 0, "max_steps": -1}
    epochs = max(arguments["trainer"]["max_epochs"] or 1, steps + 1)  # an epoch has at least one step
    place = {"max_epochs": epochs, "default_root_dir": folder}
    arguments["trainer"] = {**arguments["trainer"], **quietly, **whole, **place, **(trainer or {})}
    arguments["model"] = {**arguments["model"], **(model or {})}
    return prepare(**{**arguments, "callbacks": callbacks, "record": False})


def epochs_of(options: list[str], steps: float) -> float:
    """Return how many epochs `fit` would train with these options.

    Args:
        options: of fit, as on the command line.
        steps: of an epoch.
    """
    trainer = VGGLightningCLI("fit", with_defaults("fit", options)).arguments()["trainer"]
    if trainer["max_epochs"] == -1:
        return float(trainer["max_steps"] / steps)
    return float(trainer["max_epochs"] or Sizes().max_epochs)


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Give a folder that is gone afterwards, and keep Lightning's remarks off the screen."""
    with session(), tempfile.TemporaryDirectory(prefix="vgg_lightning_find_") as folder, warnings.catch_warnings():
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
