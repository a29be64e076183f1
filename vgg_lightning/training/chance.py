"""Says so when a network has not begun to learn, as deep VGGs without BatchNorm often do not."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from vgg_lightning.base.errors import option

FEWEST_STEPS = 100  # before that nothing is said: many networks that learn well take some dozens of steps to begin
STEPS = 200  # after which to look, if the first epoch is longer
NEAR = 0.03  # how close to ln(num_classes) the mean loss of a network is that has learnt nothing


class ChanceNote(Callback):
    """Prints one line if loss and accuracy on the training pictures are still those of guessing.

    It looks once: at the end of the first epoch that leaves `FEWEST_STEPS` behind, or after `STEPS` steps of an
    epoch. The means that it looks at are there anyway, so it costs nothing before.
    """

    def __init__(self) -> None:
        self.looked = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look after so many steps of the first epoch."""
        if not self.looked and trainer.global_step >= STEPS and batch_idx + 1 >= STEPS:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the end of a short epoch."""
        if not self.looked and trainer.global_step >= FEWEST_STEPS:
            self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.looked = True
        metrics: Any = pl_module.train_metrics
        # Read, not computed: torchmetrics would gather from all ranks, and warn if nothing had been counted.
        loss = float(metrics["loss"].mean_value) / max(float(metrics["loss"].weight), 1.0)
        right, wrong = float(metrics["acc"].tp.sum()), float(metrics["acc"].fn.sum())
        classes = int(pl_module.hparams["num_classes"])
        if trainer.is_global_zero and at_chance(loss, right, right + wrong, classes):
            print(_note(trainer.global_step, loss, right / (right + wrong), dict(pl_module.hparams)), flush=True)


def at_chance(loss: float, right: float, seen: float, num_classes: int) -> bool:
    """Return whether a mean loss and a number of right answers are what guessing gives."""
    if not seen:
        return False
    chance = 1 / num_classes
    spread = 4 * math.sqrt(chance * (1 - chance) / seen)  # four standard deviations of guessing
    return abs(loss - math.log(num_classes)) < NEAR and right / seen < chance + spread


def _note(steps: int, loss: float, accuracy: float, hparams: dict[str, Any]) -> str:
    classes = hparams["num_classes"]
    helps = []
    if hparams["init"] not in ("xavier", "kaiming"):
        helps.append(f"{option('model.init')} xavier (or kaiming)")
    if not hparams["batch_norm"]:
        helps.append(f"{option('model.batch_norm')} true")
    helps.append(f"a larger or smaller {option('model.lr')} than {hparams['lr']:g}")
    return (
        f"note: after {steps} steps the network is at chance: accuracy {100 * accuracy:.1f} % of {classes} classes, "
        f"loss {loss:.3f} (ln {classes} is {math.log(classes):.3f}); what helps: {', '.join(helps)}"
    )
