"""How a Classifier is trained: its options, turned into callbacks, an optimizer and a schedule."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.seeds import derive_seed, seed_device
from vgg_lightning.base.text import count, say
from vgg_lightning.data.batches import Batch, BatchLoader
from vgg_lightning.data.foreign import images_method
from vgg_lightning.networks.whitened_vgg import WhiteningConv
from vgg_lightning.run import collectives
from vgg_lightning.run.guards.finite import FiniteGuard
from vgg_lightning.run.lightning_private import lean, steps_of_epoch
from vgg_lightning.training.averaging import AveragedWeights, Lookahead
from vgg_lightning.training.compiling import compile_network
from vgg_lightning.training.memory import check_one_image
from vgg_lightning.training.metrics import LOSSY, ChanceNote, Scores
from vgg_lightning.training.optimizers import build_optimizer, take_settings
from vgg_lightning.training.schedules import build_schedule, restart_schedule

Optimization = OptimizerLRSchedulerConfig
IN_TRAINING = "current_model_state"  # where Lightning saves these weights beside their average
WHITENED_FROM = 5000  # images


def callbacks_of(options: Mapping[str, Any]) -> list[Callback]:
    """Return the callbacks that every fit of a Classifier has: guards, averages of the weights, metrics.

    Args:
        options: of the Classifier.
    """
    decay, steps = options["ema_decay"], options["lookahead_steps"]
    averages = [*([Lookahead(steps)] if steps else []), *([AveragedWeights(decay=decay)] if decay else [])]
    start = Start(options)
    return lean([FiniteGuard(), ChanceNote(), LoaderNote(), *averages, start, SeedDropout(), Scores()])


class SeedDropout(Callback):
    """Seeds every step by (seed, epoch, batch, rank), so that a resumed run drops what the unbroken one dropped."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the device, whatever was drawn before."""
        seed = getattr(getattr(trainer, "datamodule", None), "seed", 0)
        seed_device(pl_module.device, derive_seed(seed, trainer.current_epoch, batch_idx, trainer.global_rank, 1))


class LoaderNote(Callback):
    """Looks at the first batch of every fit, validation, test or prediction, and says what was not done to it.

    A data module augments and normalises on the device, after its loader. The batches of its loader alone are prepared
    as the model's `preprocess` does it, without augmentation. Images of another loader that are no whole numbers are
    taken as they are, for nobody knows what was done to them; so those that do not look prepared are named.
    """

    def __init__(self) -> None:
        self._looks = True

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Look at the next batch."""
        self._looks = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Look at the first batch, whatever it is for."""
        if self._looks:
            self._look(trainer, pl_module, batch)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start

    def _look(self, trainer: L.Trainer, module: Any, batch: Any) -> None:
        self._looks = False
        if not trainer.is_global_zero:
            return
        if isinstance(batch, Batch):
            if not batch.images.is_floating_point():
                self._of_module(trainer, module)
            return
        found = Batch.of(batch).images
        if not found.is_floating_point() or not found.numel():
            return
        low, high = (float(value) for value in found.aminmax())
        prepared = low < 0 if module.preprocess.normalize else high <= 1
        if not prepared:
            as_they_are = f"the loader's images, numbers from {low:g} to {high:g}, are taken as they are"
            whole = f"uint8 images would be scaled to 0..1 and {module.preprocess.describe()}"
            say(f"note: {as_they_are}; {whole}, as predict does", sys.stderr)

    def _of_module(self, trainer: L.Trainer, module: Any) -> None:
        loader = trainer.train_dataloader if trainer.training else None
        if not isinstance(loader, BatchLoader):
            return
        own, other = module.preprocess.describe(), loader.preprocessing
        left = [f"its augmentation ({', '.join(loader.augment)}) is left out"] if loader.augment else []
        left += [f"images are {own}, where its own are {other}"] if other and own != other else []
        if left:
            say(f"note: a loader without its data module: {' and '.join(left)}; give the data module", sys.stderr)


class Start(Callback):
    """Does what a run begins with: sets the precision, whitens the first layer, restarts the schedule, compiles.

    Args:
        options: of the Classifier.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the weights the precision of the run, and refuse what no fit can do.

        Raises:
            UserError: for a step uphill along accumulated gradients, as it takes that of a whole batch; for changes of
                weights that a precision rounds away; for a Trainer that has nothing left to train.
        """
        # Lightning does so once they are restored, which would round those of float64 to float32.
        trainer.precision_plugin.convert_module(pl_module)
        if stage != "fit":
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        schedulers = [c for c in callbacks if isinstance(c, GradientAccumulationScheduler)]
        accumulates = trainer.accumulate_grad_batches > 1 or any(
            scheduler.going_to_accumulate_grad_batches() for scheduler in schedulers
        )
        if self.options["sam_rho"] and accumulates:
            leave = f"leave {option('trainer.accumulate_grad_batches')} out"
            raise UserError(f"{option('model.sam_rho')} takes whole batches: {leave}")
        if getattr(getattr(trainer, "datamodule", None), "hparams", {}).get("batch_size") == 1:
            check_one_image(pl_module.hparams)
        for name in ("ema_decay", "sam_rho"):
            if self.options[name] and trainer.precision in LOSSY:
                rounded = f"changes weights by less than {option('trainer.precision')} {trainer.precision} can tell"
                raise UserError(f"{option(f'model.{name}')} {rounded}: use bf16-mixed or 32-true")
        ends = (
            (trainer.max_epochs, trainer.current_epoch, "epoch"),
            (trainer.max_steps, trainer.global_step, "step"),
        )
        for most, done, what in ends:
            if most is not None and 0 < most <= done and not trainer.ckpt_path:
                raise UserError(f"this Trainer has trained its {count(most, what)} already: make another one")

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the weights in training where a run leaves its average out: Lightning would take the average."""
        if trainer.state.fn == TrainerFn.FITTING and not self.options["ema_decay"] and IN_TRAINING in checkpoint:
            pl_module.load_state_dict(checkpoint[IN_TRAINING])
            if trainer.is_global_zero:
                goes_on = "training goes on with the weights in training, without their average"
                say(f"note: {option('model.ema_decay')} 0: {goes_on}", sys.stderr)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the filters of a whitening layer from training images, unless loaded weights have them."""
        images_of = images_method(getattr(trainer, "datamodule", None))
        for layer in pl_module.modules():
            if isinstance(layer, WhiteningConv) and not layer.whitened:
                if images_of is None:
                    needed = "takes its first filters from the images of a FashionMNISTDataModule"
                    raise UserError(f"{pl_module.hparams['network']} {needed}: give one")
                images = images_of("train")[0][:WHITENED_FROM]
                layer.whiten(pl_module.preprocess(images.to(pl_module.device)))  # type: ignore[operator]
                collectives.follow_first(layer.state_dict().values())  # other processors round otherwise

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the options of optimizer and schedule win over those in a resumed checkpoint; compile."""
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):  # ours; the learning-rate finder brings its own
                fresh = _optimizer(self.options, pl_module.network)  # type: ignore[arg-type]
                take_settings(config.scheduler.optimizer, fresh)
                restart_schedule(config.scheduler, self.options["lr"])
        for note in notes(pl_module.hparams, trainer) if trainer.is_global_zero else ():
            say(note, sys.stderr)
        # Not before: TensorBoard has drawn its graph by now.
        compile_network(pl_module.network, self.options["compile"])  # type: ignore[arg-type]


def notes(options: Mapping[str, Any], trainer: L.Trainer) -> list[str]:
    """Return what is said of options that a run is too short for, one line each.

    Args:
        options: of the Classifier.
        trainer: knows how long the run is.
    """
    found, steps, epochs = [], trainer.estimated_stepping_batches, trainer.max_epochs or 0
    warmup, decay = options["warmup_epochs"], options["ema_decay"]
    if 0 < epochs <= warmup:
        never = f"the learning rate is still rising at the end of {count(epochs, 'epoch')}, and never {options['lr']:g}"
        found.append(f"note: {option('model.warmup_epochs')} {warmup:g}: {never}")
    if decay and (averaged := 1 / (1 - decay)) > steps:
        near = f"averages over some {averaged:,.0f} steps, the run has {steps:,}: its weights stay near the first ones"
        found.append(f"note: {option('model.ema_decay')} {decay:g} {near}")
    return found


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
