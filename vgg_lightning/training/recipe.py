"""How a Classifier is trained: its options, turned into callbacks, an optimizer and a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.seeds import derive_seed, seed_device
from vgg_lightning.networks.whitened_vgg import WhiteningConv
from vgg_lightning.run import collectives
from vgg_lightning.run.guards.finite import FiniteGuard
from vgg_lightning.run.lightning_private import lean, steps_of_epoch
from vgg_lightning.training.averaging import AveragedWeights, Lookahead
from vgg_lightning.training.compiling import compile_network
from vgg_lightning.training.metrics import ChanceNote, Scores
from vgg_lightning.training.optimizers import build_optimizer, take_settings
from vgg_lightning.training.schedules import build_schedule, restart_schedule

Optimization = OptimizerLRSchedulerConfig
WHITENED_FROM = 5000  # images


def callbacks_of(options: Mapping[str, Any]) -> list[Callback]:
    """Return the callbacks that every fit of a Classifier has: guards, averages of the weights, metrics.

    Args:
        options: of the Classifier.
    """
    decay, steps = options["ema_decay"], options["lookahead_steps"]
    averages = [*([Lookahead(steps)] if steps else []), *([AveragedWeights(decay=decay)] if decay else [])]
    start = Start(options)
    return lean([FiniteGuard(), ChanceNote(), *averages, start, SeedDropout(), Scores()])


class SeedDropout(Callback):
    """Seeds every step by (seed, epoch, batch, rank), so that a resumed run drops what the unbroken one dropped."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the device, whatever was drawn before."""
        seed = getattr(getattr(trainer, "datamodule", None), "seed", 0)
        seed_device(pl_module.device, derive_seed(seed, trainer.current_epoch, batch_idx, trainer.global_rank, 1))


class Start(Callback):
    """Does what a fit begins with: whitens the first layer, restarts the schedule, compiles the network.

    Args:
        options: of the Classifier.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Raise UserError for a step uphill along accumulated gradients: it takes that of a whole batch."""
        if stage == "fit" and self.options["sam_rho"] and trainer.accumulate_grad_batches > 1:
            leave = f"leave {option('trainer.accumulate_grad_batches')} out"
            raise UserError(f"{option('model.sam_rho')} takes whole batches: {leave}")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the filters of a whitening layer from training images, unless loaded weights have them."""
        pictures = getattr(getattr(trainer, "datamodule", None), "pictures", None)
        for layer in pl_module.modules():
            if isinstance(layer, WhiteningConv) and not layer.whitened and pictures is not None:
                images = pictures("train")[0][:WHITENED_FROM]
                layer.whiten(pl_module.preprocess(images.to(pl_module.device)))  # type: ignore[operator]
                collectives.follow_first(layer.state_dict().values())  # other processors round otherwise

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the options of optimizer and schedule win over those in a resumed checkpoint; compile."""
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):  # ours; the learning-rate finder brings its own
                fresh = _optimizer(self.options, pl_module.network)  # type: ignore[arg-type]
                take_settings(config.scheduler.optimizer, fresh)
                restart_schedule(config.scheduler, self.options["lr"])
        # Not before: TensorBoard has drawn its graph by now.
        compile_network(pl_module.network, self.options["compile"])  # type: ignore[arg-type]


def optimization(
    options: Mapping[str, Any], network: nn.Module, trainer: L.Trainer, device: torch.device
) -> Optimization:
    """Return optimizer and schedule by name; the schedule moves with every step.

    Args:
        options: of the Classifier.
        network: whose parameters to optimize.
        trainer: knows the number of steps, and how the optimizer may step.
        device: on which the parameters are.
    """
    optimizer = _optimizer(options, network, can_fuse(trainer, device))
    steps = int(trainer.estimated_stepping_batches)
    warmup_steps = round(options["warmup_epochs"] * steps_of_epoch(trainer))
    scheduler = build_schedule(options["schedule"], optimizer, warmup_steps, steps, options["schedule_end"])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _optimizer(options: Mapping[str, Any], network: nn.Module, fused: bool | None = None) -> torch.optim.Optimizer:
    names = ("lr", "momentum", "nesterov", "weight_decay", "bias_lr_factor")
    return build_optimizer(options["optimizer"], network, fused=fused, **{name: options[name] for name in names})


def can_fuse(trainer: L.Trainer, device: torch.device) -> bool | None:
    """Return True on a GPU, unless Lightning refuses: where it scales gradients, or clips in mixed precision."""
    plugin = trainer.precision_plugin
    clips = isinstance(plugin, MixedPrecision) and trainer.gradient_clip_val
    scales = getattr(plugin, "scaler", None) is not None
    return True if device.type == "cuda" and not (clips or scales) else None
