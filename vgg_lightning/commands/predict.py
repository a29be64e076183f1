"""What `vgg-lightning predict` does with the network's answers: a csv file, and a summary on the screen."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vgg_lightning.errors import UserError
from vgg_lightning.runs import run_folder_of


def write_predictions(batches: Any, class_names: Sequence[str], checkpoint: Path) -> Path:
    """Write predictions.csv into the run folder of `checkpoint`, or here if it has none.

    Args:
        batches: (probabilities (N, num_classes), labels (N,)) of every batch.
        class_names: of the labels.
        checkpoint: whose weights were used.

    Returns:
        The file written.
    """
    probabilities = torch.cat([batch[0] for batch in batches])
    labels = torch.cat([batch[1] for batch in batches])
    confidence, predicted = probabilities.max(dim=1)
    file = (run_folder_of(checkpoint) or Path()) / "predictions.csv"
    try:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["index", "label", "predicted", "probability"])
            for i, (y, p, c) in enumerate(zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)):
                writer.writerow([i, class_names[y], class_names[p], f"{c:.4f}"])
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error
    right = int((predicted == labels).sum())
    print(f"{right:,} of {len(labels):,} test pictures right ({100 * right / len(labels):.2f} %)")
    print(f"predictions: {file}")
    return file
