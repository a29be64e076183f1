"""The moving average of the weights: what is validated, saved as the checkpoint's weights, and tested."""

from __future__ import annotations

import itertools
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vgg_lightning.base.torch_private import copy_each
from vgg_lightning.run.lightning_private import use_average


class MovingAverage(AveragedModel):
    """AveragedModel that does not ask the device at every step whether it is the first one, which would wait for it.

    Args:
        model: whose weights and buffers to average.
        device: where the average lies.
        decay: of the average, per step.
    """

    def __init__(self, model: nn.Module, device: torch.device, decay: float) -> None:
        super().__init__(model, device)
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._begun = False

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Bring the average nearer to `model`; the first time, copy it."""
        self._begun = self._begun or bool(self.n_averaged > 0)  # a checkpoint may have brought one
        averages, current = _values(self.module), _values(model)
        averaged = [self._begun and value.is_floating_point() for value in current]  # counters are copied
        if any(averaged):
            self._average(*_where(averaged, averages, current), 0)
        if not all(averaged):
            copy_each(*_where([not a for a in averaged], averages, current))
        self.n_averaged += 1
        self._begun = True


def _values(module: nn.Module) -> list[Tensor]:
    return [value.detach() for value in itertools.chain(module.parameters(), module.buffers())]


def _where(chosen: list[bool], averages: list[Tensor], current: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return list(itertools.compress(averages, chosen)), list(itertools.compress(current, chosen))


class AveragedWeights(EMAWeightAveraging):
    """EMAWeightAveraging with the average on the device; the weights in training are handed back only to training.

    Lightning's lies on the CPU, where the weights are as this is set up, so every step would copy all of them. And it
    puts the weights in training into the model whenever a checkpoint is loaded after fit, so that the test at the end
    of a run would test other weights than `vgg-lightning test` on the same checkpoint.

    Args:
        decay: of the average, per step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self.decay = decay

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make room for the average, before a checkpoint is loaded."""
        if stage == TrainerFn.FITTING:
            use_average(self, MovingAverage(pl_module, trainer.strategy.root_device, self.decay))

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the average and the weights in training, if it is to go on."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
