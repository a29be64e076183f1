"""The moving average of the weights: what is validated, saved as the checkpoint's weights, and tested."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class AveragedWeights(EMAWeightAveraging):
    """EMAWeightAveraging that hands the weights in training back only to training.

    Lightning's puts them into the model whenever a checkpoint is loaded after fit, so that the test at the end of
    a run would test other weights than `vgg-lightning test` on the same checkpoint.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the average and the weights in training, if it is to go on."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
