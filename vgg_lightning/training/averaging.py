"""Weight averaging: a moving average, and Lookahead, which continues training from the average.

The moving average is what is validated, saved as the weights of the checkpoint, and tested.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vgg_lightning.base.errors import option
from vgg_lightning.base.text import say
from vgg_lightning.base.torch_private import copy_each
from vgg_lightning.run.checkpoints.read import first_non_finite, named_tensors
from vgg_lightning.run.lightning_private import use_average

DECAY = 0.95  # per step, of the average at the end of a run
GROWTH = 3  # power of the run's progress with which the decay grows to that: first the average follows at once


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
        # Counters are copied, and what is infinite, as a mask: the mean of -inf and -inf is NaN.
        self._has_mean = [v.is_floating_point() and not bool(v.isinf().any()) for v in _values(self.module)]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Bring the average nearer to `model`; the first time, copy it."""
        self._begun = self._begun or bool(self.n_averaged > 0)  # a checkpoint may have brought one
        averages, current = _values(self.module), _values(model)
        averaged = [self._begun and mean for mean in self._has_mean]
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
        self._average: MovingAverage | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make room for the average, before a checkpoint is loaded."""
        if stage == TrainerFn.FITTING:
            average = MovingAverage(pl_module, trainer.strategy.root_device, self.decay)
            trainer.precision_plugin.convert_module(average)  # as the model will be
            use_average(self, average)
            self._average = average

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the average and the weights in training, if training continues."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if {"current_model_state", "averaging_state"} <= checkpoint.keys():
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            return
        # A run that had no average until now, of which Lightning warns in its own words.
        if self._average is not None:
            self._average.module.load_state_dict(checkpoint["state_dict"], strict=False)
        if trainer.is_global_zero:
            at = f"the average begins with the weights of step {checkpoint['global_step']:,}"
            say(f"note: {option('model.ema_decay')} {self.decay:g}: {at}", sys.stderr)


class Lookahead(Callback):
    """Averages the weights every few steps, and continues training from the average.

    Zhang et al., https://arxiv.org/abs/1907.08610, with a decay that grows during the run, as in Jordan,
    https://arxiv.org/abs/2404.00498. Unlike a moving average beside the training it calms the training itself.
    The average is in every checkpoint, so resuming is exact.

    Args:
        steps: optimizer steps from one average to the next.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._average: list[Tensor] = []
        self._total = 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights at hand, or with the average that the checkpoint has."""
        weights = trained(pl_module)
        stored = self._average or weights
        self._average = [average.detach().to(w.device, copy=True) for average, w in zip(stored, weights, strict=True)]
        self._total = int(trainer.estimated_stepping_batches)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, if it is time to; the last step is followed by it in any case."""
        step = trainer.global_step
        if step % self.steps and step != self._total:
            return
        decay = DECAY**self.steps * (step / self._total) ** GROWTH
        weights: list[Tensor] = [*trained(pl_module)]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # one kernel for all of them on a GPU
        average(self._average, weights, 0)
        copy_each(weights, self._average)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a stored average."""
        self._average = list(state_dict["average"])
        if first_non_finite(dict(named_tensors(self._average, "average"))):
            raise ValueError("the average of Lookahead has a NaN or Inf")


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained."""
    return [p for p in module.parameters() if p.requires_grad]
