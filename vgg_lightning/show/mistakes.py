"""The gallery of the most confident mistakes."""

from __future__ import annotations

from typing import Any

import lightning as L

from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.show.base import Answers, ValidationShow, validation_images
from vgg_lightning.show.drawing import BAD, GOOD, add_picture, enlarged, gallery

COUNT, COLUMNS, SIDE = 12, 4, 56


class Mistakes(ValidationShow):
    """Shows the validation images of which the network is surest and wrong, with true and predicted class."""

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write the image `val_pictures/mistakes`."""
        confidence, predicted = answers.logits.softmax(dim=1).max(dim=1)
        wrong = (predicted != answers.labels).nonzero().flatten()
        worst = wrong[confidence[wrong].argsort(descending=True, stable=True)][:COUNT]
        images = validation_images(trainer)[0][answers.indices[worst], 0].numpy()
        captions = [
            (
                (model.class_names[answers.labels[i]], GOOD),
                (model.class_names[predicted[i]], BAD),
                (f"{100 * confidence[i]:.1f} %", BAD),
            )
            for i in worst.tolist()
        ]
        title = f"the surest of {len(wrong):,} mistakes in {len(answers.labels):,} images"
        pictures = [enlarged(image, SIDE) for image in images]
        add_picture(
            board,
            "val_pictures/mistakes",
            gallery(title, "green: true class, red: predicted", pictures, captions, COLUMNS),
            step,
        )
