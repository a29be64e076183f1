"""Precision and recall of every class over all thresholds, in TensorBoard's tab PR CURVES."""

from __future__ import annotations

from typing import Any

import lightning as L

from vgg_lightning.base.text import printable
from vgg_lightning.show.base import Answers, ValidationShow

THRESHOLDS = 51


class Curves(ValidationShow):
    """Writes a curve for every class after every validation."""

    tensorboard_alone = True

    def show(self, board: Any, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write `val_curve/shirt` and the like."""
        probabilities = answers.logits.softmax(dim=1)
        for c, name in enumerate(map(printable, model.class_names)):
            labels = (answers.labels == c).numpy()
            board.add_pr_curve(f"val_curve/{name}", labels, probabilities[:, c].numpy(), step, THRESHOLDS)
