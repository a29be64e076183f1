"""The reliability diagram: is a network that says 90 % right in 90 of 100 cases?"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.show.base import Answers, ValidationShow
from vgg_lightning.show.drawing import GREY, INK, WIDTH, Page, add_picture

BINS = 15
LEFT, TOP, SIDE, LOW = 52, 62, 270, 56  # pixels: of the diagram, and the height of the bars below it
BLUE, RED, PALE = (66, 146, 198), (203, 67, 53), (236, 240, 244)


class Calibration(ValidationShow):
    """Draws accuracy over confidence after every validation, and writes the calibration error as a curve."""

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write `val_scores/calibration_error` and the image `val_pictures/reliability`."""
        probabilities = answers.logits.softmax(dim=1)
        error = multiclass_calibration_error(probabilities, answers.labels, probabilities.shape[1], n_bins=BINS)
        board.add_scalar("val_scores/calibration_error", float(error), step)
        confidence, predicted = probabilities.max(dim=1)
        page = draw_reliability(confidence, predicted == answers.labels, float(error))
        add_picture(board, "val_pictures/reliability", page, step)


def draw_reliability(confidence: Tensor, right: Tensor, error: float) -> Image.Image:
    """Return a reliability diagram, and below it how many images have which confidence.

    Args:
        confidence: float32 (N,), of the predicted class.
        right: bool (N,), whether it is the true one.
        error: the expected calibration error.
    """
    page = Page(WIDTH, TOP + SIDE + LOW + 76, f"calibration error {100 * error:.1f} %")
    page.text((8, 30), "blue: accuracy at this confidence; red: how far off", size=12, anchor="la", ink=GREY)
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    accuracy = torch.bincount(bins, right.float(), minlength=BINS) / counts.clamp(min=1)
    mean = torch.bincount(bins, confidence, minlength=BINS) / counts.clamp(min=1)
    bottom, base = TOP + SIDE, TOP + SIDE + 36 + LOW
    page.box((LEFT, TOP, LEFT + SIDE, bottom), fill=PALE)
    for k in range(BINS):
        left, end = LEFT + SIDE * k / BINS + 1, LEFT + SIDE * (k + 1) / BINS - 1
        page.box((left, base - LOW * int(counts[k]) / int(counts.max()), end, base), fill=BLUE)
        if counts[k]:
            low, high = sorted((float(accuracy[k]), float(mean[k])))
            page.box((left, bottom - SIDE * float(accuracy[k]), end, bottom), fill=BLUE)
            page.box((left, bottom - SIDE * high, end, bottom - SIDE * low), fill=None, line=RED)
    page.draw.line((LEFT, bottom, LEFT + SIDE, TOP), fill=GREY, width=1)
    for share in (0.0, 0.5, 1.0):
        page.text((LEFT - 8, bottom - SIDE * share), f"{100 * share:.0f} %", anchor="rm", ink=INK)
        page.text((LEFT + SIDE * share, bottom + 14), f"{100 * share:.0f} %")
    page.text((LEFT - 8, base - LOW), f"{int(counts.max()):,}", anchor="rm")
    page.text((LEFT + SIDE / 2, base + 14), "confidence, and images with it")
    return page.picture
