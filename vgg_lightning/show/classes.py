"""Recall, precision and F1 of every class, as a heat map of classes by epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.show.base import Answers, ValidationShow
from vgg_lightning.show.drawing import BLUES, GREY, INK, WHITE, WIDTH, Page, add_picture, colours

SCORES = {"recall": multiclass_recall, "precision": multiclass_precision, "F1": multiclass_f1_score}
MOST = 8  # validations that are shown: the first, the last, and evenly chosen ones between them
NAMES, ROW, TOP = 90, 20, 52  # pixels: of the names, and the height of a row and of what is above the first
MOST_ROWS = 50  # classes that are shown: the worst ones


class ClassScores(ValidationShow):
    """Draws recall, precision and F1 of every class over the validations of a run.

    The recall of a class is the share of its images that are recognised, which is also called its accuracy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[int, Tensor]] = []  # validated after so many epochs, (3, num_classes)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores of all validations, so that a resumed run shows those of its earlier launches."""
        return {"history": [(epoch, scores.clone()) for epoch, scores in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the launch before."""
        self.history = [(int(epoch), scores) for epoch, scores in state_dict["history"]]

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write the images `val_pictures/classes_recall` and the like."""
        for i, name in enumerate(SCORES):
            page = draw_scores(name, [(epoch, scores[i]) for epoch, scores in self.history], model.class_names)
            add_picture(board, f"val_pictures/classes_{name.lower()}", page, step)

    def gathered(self, trainer: L.Trainer, answers: Answers) -> None:
        """Keep the scores of this validation."""
        classes = answers.logits.shape[1]
        options: dict[str, Any] = {"num_classes": classes, "average": "none", "validate_args": False}
        scores = torch.stack([score(answers.logits, answers.labels, **options) for score in SCORES.values()])
        self.history.append((trainer.current_epoch + 1, scores))


def draw_scores(title: str, history: Sequence[tuple[int, Tensor]], names: Sequence[str]) -> Image.Image:
    """Return a table of numbers in per cent: a row for each class, a column for each validation.

    Args:
        title: what the numbers are.
        history: for each validation the epoch after which it was, and float32 (num_classes,).
        names: of the classes.
    """
    places = torch.linspace(0, len(history) - 1, min(len(history), MOST)).round().long().tolist()
    chosen = [history[i] for i in places]
    rows = sorted(chosen[-1][1].argsort(stable=True)[:MOST_ROWS].tolist())
    page = Page(WIDTH, TOP + ROW * len(rows) + 10, f"{title} of each class in %")
    page.text((NAMES - 8, TOP - 12), "epoch", size=11, anchor="rm", ink=GREY)
    cell = min(44, (WIDTH - NAMES - 8) // len(chosen))
    for column, (epoch, scores) in enumerate(chosen):
        x = NAMES + cell * column
        page.text((x + cell / 2, TOP - 12), str(epoch), size=11, ink=GREY)
        shades = colours(scores.clamp(0, 1).numpy() ** 3, BLUES)  # the power tells 85 from 95 %
        for row, c in enumerate(rows):
            y = TOP + ROW * row
            page.box((x, y, x + cell - 2, y + ROW - 2), fill=tuple(shades[c].tolist()))
            value = float(scores[c])
            page.text((x + cell / 2 - 1, y + ROW / 2 - 1), f"{100 * value:.0f}", ink=WHITE if value > 0.75 else INK)
    for row, c in enumerate(rows):
        page.label((NAMES - 8, TOP + ROW * row + ROW / 2 - 1), names[c], NAMES - 10)
    return page.picture
