"""The confusion matrix: true and predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.functional.classification import multiclass_confusion_matrix

from vgg_lightning.show.base import Answers, ValidationShow
from vgg_lightning.show.drawing import BLUES, GREY, INK, WHITE, Page, add_picture, colours

CELL, MARGIN, TOP = 46, 112, 150  # pixels
MOST_NUMBERS = 20  # classes up to which the counts are written into the cells


class ConfusionMatrix(ValidationShow):
    """Draws the confusion matrix of every validation."""

    def show(self, board: SummaryWriter, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
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
    cell = CELL if classes <= MOST_NUMBERS else 16
    size = cell * classes
    page = Page(MARGIN + size + 20, TOP + size + 20, "true class (rows) and predicted class (columns)")
    page.text((14, 36), "images in each cell; the shade is their share of the row", anchor="la", ink=GREY)
    shares = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    shades = colours(shares**0.5, BLUES)  # the root, lest the few mistakes vanish beside the diagonal
    for row in range(classes):
        y = TOP + cell * row
        page.text((MARGIN - 8, y + cell / 2), names[row], anchor="rm")
        page.upright((MARGIN + cell * row + cell // 2, TOP - 6), names[row])
        for column in range(classes):
            x = MARGIN + cell * column
            page.box((x, y, x + cell - 2, y + cell - 2), fill=tuple(shades[row, column].tolist()))
            if classes <= MOST_NUMBERS and counts[row, column]:
                ink = WHITE if shares[row, column] > 0.2 else INK
                page.text((x + cell / 2 - 1, y + cell / 2 - 1), str(int(counts[row, column])), size=14, ink=ink)
    return page.picture
