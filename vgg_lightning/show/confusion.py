"""The confusion matrix: true and predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.show.base import Answers, ValidationShow
from vgg_lightning.show.drawing import BLUES, GREY, INK, WHITE, WIDTH, Page, add_picture, colours

CELL, MARGIN, TOP = 27, 78, 122  # pixels: of a cell of ten classes, and of the names
SMALLEST_NAME = 10  # pixels of a row below which every other one is named
MOST_NUMBERS = 12  # classes up to which the counts are written into the cells


class ConfusionMatrix(ValidationShow):
    """Draws the confusion matrix of every validation."""

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write the image `val_pictures/confusion`."""
        classes = answers.logits.shape[1]
        counts = multiclass_confusion_matrix(answers.logits, answers.labels, classes, validate_args=False)
        add_picture(board, "val_pictures/confusion", draw_confusion(counts, model.class_names), step)


def draw_confusion(counts: Tensor, names: Sequence[str]) -> Image.Image:
    """Return an image of a confusion matrix.

    Args:
        counts: int64 (num_classes, num_classes); a row is a true class, a column a predicted one.
        names: of the classes.
    """
    classes = len(names)
    writes = classes <= MOST_NUMBERS
    cell = min(CELL, max(6, (WIDTH - MARGIN - 6) // classes)) if classes >= 10 else CELL
    page = Page(
        max(WIDTH, MARGIN + cell * classes + 6), TOP + cell * classes + 10, "true class (rows), predicted (columns)"
    )
    page.text((8, 28), "images in each cell; shade: share of the row", size=12, anchor="la", ink=GREY)
    shares = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    shades = colours(shares**0.5, BLUES)  # the root, lest the few mistakes vanish beside the diagonal
    for row in range(classes):
        y = TOP + cell * row
        if cell >= SMALLEST_NAME or row % 2 == 0:
            page.label((MARGIN - 6, y + cell / 2), names[row], MARGIN - 8)
            page.upright((MARGIN + cell * row + cell // 2, TOP - 4), names[row], size=12 if cell >= 16 else 10)
        for column in range(classes):
            x = MARGIN + cell * column
            page.box((x, y, x + cell - 2, y + cell - 2), fill=tuple(shades[row, column].tolist()))
            if writes and counts[row, column]:
                ink = WHITE if shares[row, column] > 0.2 else INK
                text = str(int(counts[row, column]))
                page.text((x + cell / 2 - 1, y + cell / 2 - 1), text, size=12 if len(text) < 4 else 10, ink=ink)
    return page.picture
