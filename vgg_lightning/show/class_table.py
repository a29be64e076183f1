"""The test accuracy of each class: a table on the screen, and numbers for results.json."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from vgg_lightning.base.text import say, table
from vgg_lightning.data.batches import Batch


class ClassTable(Callback):
    """Counts which classes are taken for which in a test, on all processes together."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.counts = torch.zeros(0, 0, dtype=torch.long)  # (num_classes, num_classes): true, predicted

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self.names = list(pl_module.class_names)  # type: ignore[arg-type]
        self._matrix = MulticlassConfusionMatrix(len(self.names), validate_args=False).to(pl_module.device)

    def on_test_batch_end(  # type: ignore[override]  # Classifier returns the logits
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Tensor, batch: Any, *_: Any
    ) -> None:
        """Count one batch."""
        batch = Batch.of(batch)
        self._matrix.update(outputs, batch.labels[: batch.share.own])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add up what all processes have counted."""
        self.counts = self._matrix.compute().cpu()

    def accuracies(self) -> dict[str, float]:
        """Return the share of each class's images that was recognised, by its name; without a test nothing."""
        rows = zip(self.names, self.counts.diagonal().tolist(), self.counts.sum(dim=1).tolist(), strict=False)
        return {name: round(right / seen, 6) for name, right, seen in rows if seen}

    def text(self) -> str:
        """Return a table: class, accuracy, images, and what it is most often taken for."""
        rows: list[list[object]] = []
        for own, (name, counts) in enumerate(zip(self.names, self.counts, strict=True)):
            right, seen = int(counts[own]), int(counts.sum())
            others = counts.clone()
            others[own] = 0
            most = int(others.argmax())
            taken = f"{self.names[most]} ({100 * int(others[most]) / seen:.1f} %)" if int(others[most]) else ""
            rows.append([name, f"{100 * right / seen:.2f} %" if seen else "", seen, taken])
        return table(["class", "accuracy", "images", "most often taken for"], rows)


def _tables(trainer: L.Trainer) -> list[ClassTable]:
    return [c for c in trainer.callbacks if isinstance(c, ClassTable) and len(c.counts)]  # type: ignore[attr-defined]


def class_accuracies(trainer: L.Trainer) -> dict[str, float]:
    """Return the accuracy of each class in the test that `trainer` has made, by its name; without a test nothing."""
    return next((found.accuracies() for found in _tables(trainer)), {})


def print_class_table(trainer: L.Trainer, part: str = "") -> None:
    """Print the accuracy of each class, if `trainer` has made a test.

    Args:
        trainer: that made the test.
        part: of the test images that was tested, in words; empty if it was all of them.
    """
    for found in _tables(trainer):
        if trainer.is_global_zero:
            heading = f"on {part}:\n" if part else ""
            say(f"\n{heading}{found.text()}")
