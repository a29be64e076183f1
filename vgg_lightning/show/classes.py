"""Accuracy, precision, recall and F1 of every class, as curves."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision, MulticlassRecall

from vgg_lightning.base.text import printable
from vgg_lightning.show.base import Answers, ValidationShow


class ClassScores(ValidationShow):
    """Writes the scores of every class after every validation.

    The accuracy of a class is the share of its images that are recognised, which is its recall.
    """

    def show(self, board: SummaryWriter, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write `val_accuracy/shirt` and the like."""
        options: dict[str, Any] = {"num_classes": answers.logits.shape[1], "average": "none", "validate_args": False}
        options["sync_on_compute"] = False  # the answers of all processes are here: do not wait for the others
        scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(**options),
                "precision": MulticlassPrecision(**options),
                "recall": MulticlassRecall(**options),
                "f1": MulticlassF1Score(**options),
            },
            prefix="val_",
        )
        scores.update(answers.logits, answers.labels)
        for score, values in scores.compute().items():
            for name, value in zip(map(printable, model.class_names), values.tolist(), strict=True):
                board.add_scalar(f"{score}/{name}", value, step)
