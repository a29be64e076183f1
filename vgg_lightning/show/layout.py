"""Training and validation in one chart: the layout of TensorBoard's tab CUSTOM SCALARS."""

from __future__ import annotations

import lightning as L

from vgg_lightning.show.base import Show

CHARTS = {
    "training and validation": {
        "loss": ["Multiline", ["^train_loss$", "^val_loss$"]],
        "accuracy": ["Multiline", ["^train_acc$", "^val_acc$", "^val_acc_tta$"]],
    },
    "classes": {
        "accuracy (recall) of each class": ["Multiline", ["^val_accuracy/"]],
        "precision of each class": ["Multiline", ["^val_precision/"]],
        "F1 of each class": ["Multiline", ["^val_f1/"]],
    },
}


class Layout(Show):
    """Writes which curves stand together, once."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the layout."""
        self.attempt(trainer, lambda board, step: board.add_custom_scalars(CHARTS))
