"""How a Classifier is trained: from its options to callbacks, optimizer and schedule."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.seeds import derive_seed, seed_device
from vgg_lightning.run.guards.finite import FiniteGuard
from vgg_lightning.run.hooks import lean
from vgg_lightning.training.averaging import AveragedWeights
from vgg_lightning.training.chance import ChanceNote
from vgg_lightning.training.lookahead import Lookahead
from vgg_lightning.training.optimizers import build_optimizer
from vgg_lightning.training.schedules import build_schedule, restart_schedule
from vgg_lightning.training.trained import Trained


def check_trainable(model: Trained) -> None:
    """Raise UserError for options that cannot be trained with, though they can be tested."""
    if model.teacher:
        model.teacher.check(model)
    elif model.hparams["distill"]:
        give = f"give {option('model.teacher')} a run folder or a checkpoint"
        raise UserError(f"{option('model.distill')} needs a teacher: {give}")
    if model.hparams["sam_rho"] and model.trainer.accumulate_grad_batches > 1:
        leave = f"leave {option('trainer.accumulate_grad_batches')} out"
        raise UserError(f"{option('model.sam_rho')} takes whole batches: {leave}")


def callbacks_of(model: Trained) -> list[Callback]:
    """Guard the numbers, and average the weights if asked to."""
    decay, steps = model.hparams["ema_decay"], model.hparams["lookahead_steps"]
    averages = [Lookahead(steps)] if steps else []
    return lean([FiniteGuard(), ChanceNote(), *averages, *([AveragedWeights(decay=decay)] if decay else [])])


def optimizer_of(model: Trained) -> OptimizerLRSchedulerConfig:
    """Build optimizer and schedule by name; the schedule moves with every step."""
    hparams, trainer = model.hparams, model.trainer
    optimizer = build_optimizer(
        hparams["optimizer"],
        model.network,
        hparams["lr"],
        hparams["momentum"],
        hparams["nesterov"],
        hparams["weight_decay"],
        _fuses(trainer, model.device),
        hparams["bias_lr_factor"],
    )
    total_steps = int(trainer.estimated_stepping_batches)
    steps_per_epoch = total_steps / max(trainer.max_epochs or 1, 1)
    warmup_steps = round(hparams["warmup_epochs"] * steps_per_epoch)
    scheduler = build_schedule(hparams["schedule"], optimizer, warmup_steps, total_steps, hparams["schedule_end"])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _fuses(trainer: L.Trainer, device: torch.device) -> bool | None:
    """Return True on a GPU, unless Lightning refuses: where it scales gradients, or clips in mixed precision."""
    plugin = trainer.precision_plugin
    clips = isinstance(plugin, MixedPrecision) and trainer.gradient_clip_val
    scales = getattr(plugin, "scaler", None) is not None
    return True if device.type == "cuda" and not (clips or scales) else None


def restart_schedules(trainer: L.Trainer, lr: float) -> None:
    """Let the peak `lr`, schedule and number of epochs asked for win over those in a resumed checkpoint."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, LambdaLR):  # ours; the learning-rate finder brings its own
            restart_schedule(config.scheduler, lr)


def seed_step(model: Trained, batch_idx: int) -> None:
    """Seed dropout by (seed, epoch, batch, rank), whatever was drawn before."""
    seed = getattr(getattr(model.trainer, "datamodule", None), "seed", 0)
    seed_device(model.device, derive_seed(seed, model.current_epoch, batch_idx, model.global_rank, 1))
