"""`vgg-lightning predict`: the classes of the test pictures, or of your own, on the screen and in files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import check_place, write_whole
from vgg_lightning.base.text import csv_cell, say
from vgg_lightning.cli.prediction_files import Answers, report, write
from vgg_lightning.data.batches import in_order
from vgg_lightning.loading.load import class_names_of, read_checkpoint
from vgg_lightning.run import collectives
from vgg_lightning.run.folders import run_folder_of

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.cli import LightningArgumentParser

    from vgg_lightning.classifier import Classifier
    from vgg_lightning.data.datamodule import FashionMNISTDataModule

TOP_K = 3
SOME_NOT_READ = 4  # exit code


def add_options(parser: LightningArgumentParser) -> None:
    """Add the options of the verb that are not the Trainer's."""
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder for predictions.csv, made if missing; else the run folder, for own pictures the current one.",
    )
    parser.add_argument(
        "--top_k", type=int | None, default=None, help=f"How many classes to name for an own picture; else {TOP_K}."
    )


def check_options(verb: str, config: Any) -> None:
    """Raise UserError for options that do not go together; let own pictures be classified by one process."""
    own = config.data.predict_path is not None
    if own and verb != "predict":
        raise UserError(f"--data.predict_path goes with predict: leave it out of {verb}")
    if verb != "predict":
        return
    if config.top_k is not None and not own:
        raise UserError("--top_k goes with --data.predict_path: give your own pictures, or leave it out")
    if own and config.trainer.devices in ("auto", -1, "-1"):
        config.trainer.devices = 1
    if own and str(config.trainer.devices) != "1" and not _is_one(config.trainer.devices):
        raise UserError("--trainer.devices: own pictures are classified by one process; give 1, or leave it out")


def _is_one(devices: Any) -> bool:
    parts = devices if isinstance(devices, list) else str(devices).strip(",").split(",")
    return len(parts) == 1 and not isinstance(devices, int) and (isinstance(devices, list) or "," in str(devices))


def predict(
    trainer: L.Trainer, model: Classifier, data: FashionMNISTDataModule, options: Any, arguments: dict[str, Any]
) -> int:
    """Run Trainer.predict and write what comes out.

    Args:
        trainer: the Trainer.
        model: the classifier.
        data: with or without a `predict_path`.
        options: of the command line.
        arguments: of Trainer.predict.

    Returns:
        The exit code.

    Raises:
        UserError: if there is no picture or no place to write, which is found out before the work.
    """
    checkpoint = Path(options.ckpt_path)
    if data.predict_path is None:
        folder = writable(options.output or run_folder_of(checkpoint) or Path())
        by_rank = collectives.gather(trainer.predict(**arguments, return_predictions=True))
        if trainer.is_global_zero:
            write_predictions(in_order(by_rank), data.class_names, folder)
        return 0
    if trainer.world_size > 1:
        raise UserError("--data.predict_path is for a single process: give --trainer.devices 1")
    data.setup("predict")
    names = class_names_of(read_checkpoint(checkpoint), model)
    top_k = _checked(options.top_k, len(names))
    folder = writable(options.output or Path())
    batches = trainer.predict(**arguments, return_predictions=True)
    assert data.own_pictures is not None
    answers = Answers(data.own_pictures, names, batches or [], top_k)
    files = write(answers, folder, _said(options, model, top_k))
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


def write_predictions(batches: Any, class_names: Sequence[str], folder: Path) -> Path:
    """Write predictions.csv of the test pictures, and print how many are right.

    Args:
        batches: (probabilities (N, num_classes), labels (N,)) of every batch.
        class_names: of the labels.
        folder: where to write it.

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
    for i, (y, p, c) in enumerate(zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)):
        writer.writerow([i, names[y], names[p], f"{c:.4f}"])
    try:
        write_whole(file, table.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error
    right = int((predicted == labels).sum())
    print(f"{right:,} of {len(labels):,} test pictures right ({100 * right / len(labels):.2f} %)")
    say(f"predictions: {file}")
    return file
