"""Histograms of weights and gradients at the end of every epoch."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from vgg_lightning.show.base import Show

BINS = 64
MOST = 100_000  # values of a tensor that are counted: evenly chosen ones, if it has more


class Histograms(Show):
    """Writes the weights of every convolution and Linear layer, and their gradients in the last batch of an epoch."""

    tensorboard_alone = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write them at the end of an epoch, before the gradients are gone."""
        if trainer.is_last_batch:
            self.attempt(trainer, lambda board, step: self._show(board, step, pl_module))

    def _show(self, board: SummaryWriter, step: int, model: nn.Module) -> None:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                short = name.removeprefix("network.")
                board.add_histogram(f"weights/{short}", _some(layer.weight), step, bins=BINS)
                if layer.weight.grad is not None:
                    board.add_histogram(f"gradients/{short}", _some(layer.weight.grad), step, bins=BINS)


def _some(tensor: Tensor) -> Tensor:
    values = tensor.detach().flatten()
    return values[:: -(-len(values) // MOST)].float().cpu()
