"""Lookahead: the weights take some steps, then are pulled back to an average of where they have been."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vgg_lightning.base.torch_private import copy_each

DECAY = 0.95  # per step, of the average at the end of a run
GROWTH = 3  # power of the run's progress with which the decay grows to that: first the average follows at once


class Lookahead(Callback):
    """Averages the weights every few steps, and lets training go on from the average.

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


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained."""
    return [p for p in module.parameters() if p.requires_grad]
