"""`vgg-lightning predict`: the classes of the test images, or of your own, on the screen and in files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vgg_lightning import prepare as runs
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import check_place, write_whole
from vgg_lightning.base.text import csv_cell, say
from vgg_lightning.cli.prediction_files import Answers, report, write
from vgg_lightning.data.batches import BatchLoader
from vgg_lightning.loading.opened import open_checkpoint
from vgg_lightning.run.folders import run_folder_of
from vgg_lightning.run.lock import FolderLock

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

    from vgg_lightning.classifier import Classifier
    from vgg_lightning.prepare import Run

TOP_K = 3
SOME_NOT_READ = 4  # exit code


def add_options(parser: LightningArgumentParser) -> None:
    """Add the options of the subcommand that are not the Trainer's."""
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder for predictions.csv, made if missing; default: the run folder, or the current one for own images.",
    )
    parser.add_argument(
        "--top_k",
        type=int | None,
        default=None,
        help=f"Number of classes to list for each of your own images; default: {TOP_K}.",
    )


def check_options(subcommand: str, config: Any) -> None:
    """Raise UserError for options that do not go together."""
    if subcommand == "predict" and config.top_k is not None and config.data.predict_path is None:
        raise UserError("--top_k goes with --data.predict_path: give your own images, or leave it out")


def predict(run: Run, options: Any) -> int:
    """Predict, and write what comes out.

    Args:
        run: prepared to predict, with or without a `predict_path` of its data.
        options: of the command line.

    Returns:
        The exit code.

    Raises:
        UserError: if there is no image or no place to write, which is found out before the work.
    """
    data, checkpoint = run.data, Path(options.ckpt_path)
    if data.predict_path is None:
        folder = writable(options.output or run_folder_of(checkpoint) or Path())
        with held(folder):
            batches = runs.predict(run)
            if run.trainer.is_global_zero:
                part = data.part("test", sum(run.trainer.num_predict_batches))
                loader, text = data.predict_dataloader(), "" if part.is_whole else f": {part.text}"
                assert isinstance(loader, BatchLoader)
                write_predictions(batches, data.class_names, folder, text, loader.order())
        return 0
    if run.trainer.world_size > 1:
        raise UserError("--data.predict_path is for a single process: give --trainer.devices 1")
    data.setup("predict")
    names = open_checkpoint(checkpoint, type(run.model)).class_names
    top_k = _checked(options.top_k, len(names))
    folder = writable(options.output or Path())
    with held(folder):
        batches = runs.predict(run)
        assert data.own_pictures is not None
        answers = Answers(data.own_pictures, names, batches, top_k)
        seen, total = len(answers.rows) + len(data.own_pictures.refused), len(data.own_pictures.names)
        if seen < total:
            limit = f"--trainer.limit_predict_batches {options.trainer.limit_predict_batches}"
            say(f"note: {limit}: the first {seen:,} of {total:,} images by name, which may be of one class")
        files = write(answers, folder, _said(options, run.model, top_k))
    report(answers, files)
    return SOME_NOT_READ if answers.found.refused else 0


def _checked(top_k: int | None, classes: int) -> int:
    if top_k is not None and not 1 <= top_k <= classes:
        raise UserError(f"--top_k {top_k} is out of range: it takes 1 to {classes}")
    return top_k or min(TOP_K, classes)


def _said(options: Any, model: Classifier, top_k: int) -> dict[str, Any]:
    """Return what predictions.json says of where its numbers come from."""
    hparams = {name: model.hparams[name] for name in ("network", "ratio", "image_size", "in_channels", "tta")}
    return {
        "ckpt_path": str(options.ckpt_path),
        "data.predict_path": str(options.data.predict_path),
        "top_k": top_k,
        **{f"model.{name}": value for name, value in hparams.items()},
        "data.normalize": model.preprocess.normalize,
    }


def writable(folder: str | Path) -> Path:
    """Return `folder`, made if it is missing, once something could be written there. Raises UserError if not."""
    folder = Path(folder).expanduser()
    try:
        check_place(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to the folder {folder}: {reason}; choose another with --output") from error
    for name in ("predictions.csv", "predictions.json"):
        if (folder / name).is_dir():
            raise UserError(f"cannot write {folder / name}: it is a folder; choose another place with --output")
    return folder


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder within, if it is that of a run, which may be under way. Raises UserError if it is in use."""
    if not (folder / "checkpoints").is_dir():
        return nullcontext()
    return FolderLock(folder, "wait for its end, or choose another place with --output").at_work()


def write_predictions(
    batches: Any, class_names: Sequence[str], folder: Path, part: str = "", order: Tensor | None = None
) -> Path:
    """Write predictions.csv of the test images, and print how many are right.

    Args:
        batches: (probabilities (N, num_classes), labels (N,)) of every batch.
        class_names: of the labels.
        folder: where to write it.
        part: what to say of a part of the test images.
        order: the places of the images in the data, in the order of the batches; by default 0, 1, ...

    Returns:
        The file written.
    """
    probabilities = torch.cat([batch[0] for batch in batches])
    labels = torch.cat([batch[1] for batch in batches])
    confidence, predicted = probabilities.max(dim=1)
    file = folder / "predictions.csv"
    names = [csv_cell(name) for name in class_names]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["index", "label", "predicted", "probability"])
    places = range(len(labels)) if order is None else order[: len(labels)].tolist()
    rows = zip(places, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    writer.writerows([i, names[y], names[p], f"{c:.4f}"] for i, y, p, c in sorted(rows))
    try:
        write_whole(file, table.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error
    right = int((predicted == labels).sum())
    say(f"{right:,} of {len(labels):,} test images right ({100 * right / len(labels):.2f} %){part}")
    say(f"predictions: {file}")
    return file
