"""What callbacks show beside the metrics, images above all: to TensorBoard, and to each logger that takes images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from vgg_lightning.run.loggers.tensorboard import RunTensorBoard


class Board(Protocol):
    """What a callback can show in every logger: torch's SummaryWriter has the first of these two methods."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number."""

    def add_picture(self, tag: str, picture: Image.Image, step: int) -> None:
        """Write an image."""


class LoggerBoard:
    """A logger of Lightning's that takes images as a `Board`.

    Args:
        logger: with a method `log_image` as that of Lightning's WandbLogger.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number as a metric."""
        self.logger.log_metrics({tag: value}, step)

    def add_picture(self, tag: str, picture: Image.Image, step: int) -> None:
        """Write an image."""
        self.logger.log_image(key=tag, images=[picture], step=step)


def takes_images(logger: Logger) -> bool:
    """Return whether callbacks can show their images in a logger."""
    return isinstance(logger, TensorBoardLogger | WandbLogger) or callable(getattr(logger, "log_image", None))


def show(trainer: L.Trainer, log: Callable[[Any], None], tensorboard_alone: bool = False) -> None:
    """Let `log` write to each board of a run. Call it on the first process alone.

    Args:
        trainer: whose loggers these are.
        log: takes a board: torch's SummaryWriter, or a `LoggerBoard`.
        tensorboard_alone: whether it needs what the SummaryWriter alone has.
    """
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.show(log)
        elif isinstance(logger, TensorBoardLogger):
            log(logger.experiment)
        elif takes_images(logger) and not tensorboard_alone:
            log(LoggerBoard(logger))


write = show  # its name when TensorBoard was the only board
HPARAMS_METRICS = ("val_acc", "val_loss", "test_acc", "test_loss")
