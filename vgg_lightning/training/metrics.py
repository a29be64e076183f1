"""The metrics of a run: loss and accuracy in training, validation and test, and their logging."""

from __future__ import annotations

import math
import sys
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from vgg_lightning.base.errors import option
from vgg_lightning.base.text import count as counted
from vgg_lightning.base.text import printable, say
from vgg_lightning.data.batches import Batch
from vgg_lightning.run import collectives

Sums = dict[str, dict[str, Tensor]]
LOSSY = ("bf16-true", "16-true")  # precisions in which small changes of a weight, or of a sum, are rounded away


def epoch_metrics(num_classes: int, tta: bool) -> tuple[MetricCollection, MetricCollection, MetricCollection]:
    """Return the metrics of training, validation and test: loss and accuracy.

    Args:
        num_classes: number of classes.
        tta: whether validation and test have an accuracy with test-time augmentation as well, `acc_tta`.
    """
    metrics = MetricCollection(
        {"loss": MeanMetric(nan_strategy="disable"), "acc": _accuracy(num_classes)}, compute_groups=False
    )
    train = metrics.clone(prefix="train_")
    if tta:
        metrics.add_metrics({"acc_tta": _accuracy(num_classes)})
    return train, metrics.clone(prefix="val_"), metrics.clone(prefix="test_")


def count(metrics: MetricCollection, loss: Tensor, logits: Tensor, y: Tensor, tta: Tensor | None = None) -> None:
    """Add one batch to `metrics`.

    Args:
        metrics: of `epoch_metrics`.
        loss: mean loss of the batch.
        logits: of the images, (N, num_classes).
        y: labels (N,), or shares of the classes (N, num_classes), of which the largest counts as the label.
        tta: logits averaged over the views of test-time augmentation.
    """
    if not len(y):  # the process has no image of this batch
        return
    metrics["loss"].update(loss.expand(len(y)))  # with nan_strategy "disable" torchmetrics drops a weight
    metrics["acc"].update(logits, y.argmax(dim=1) if y.ndim > 1 else y)
    if "acc_tta" in metrics and tta is not None:
        metrics["acc_tta"].update(tta, y)


class Scores(Callback):
    """Logs the means of the metrics that a Classifier counts, and lets the sums of a running epoch resume.

    The checkpoint has the sums as `train_metrics`, and with several processes those of each one as
    `train_metrics_by_rank`.
    """

    def __init__(self) -> None:
        self._restored: Sums = {}  # until the fit begins

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count in float32 whatever the precision of the weights: in half of it, 257 images are 256."""
        if trainer.precision in LOSSY:
            for split in ("train", "val", "test"):
                _of(pl_module, split).set_dtype(torch.float32)
            self._restore(pl_module)  # once more: Lightning has rounded the sums with the weights
        self._restored = {}

    on_validation_start = on_test_start = on_fit_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means of the epoch, here and now: the checkpoint of the epoch is written after this hook."""
        metrics = _of(pl_module, "train")
        means = metrics.compute()
        pl_module.log_dict(means, prog_bar=True, logger=False)
        step = max(trainer.global_step - 1, 0)  # that of the last batch, as for the validation metrics
        scalars = {name: float(value) for name, value in means.items()}
        for logger in trainer.loggers:
            logger.log_metrics({**scalars, "epoch": trainer.current_epoch}, step)
            logger.save()
        if trainer.is_last_batch:  # else the run ends within the epoch, and continues there if it is resumed
            metrics.reset()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let all processes validate one network: BatchNorm's statistics are those of the first process."""
        collectives.follow_first(pl_module.network.buffers())  # type: ignore[union-attr]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log loss and accuracy on the validation images."""
        _log_means(pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log loss and accuracy on the test images."""
        _log_means(pl_module, "test")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the sums behind the means of a running epoch, which Lightning does not."""
        train = _of(pl_module, "train")
        sums: Sums = {k: cast("dict[str, Tensor]", m.metric_state) for k, m in train.items(keep_base=True)}
        checkpoint["train_metrics"] = sums
        if collectives.several():
            here = {name: {key: value.cpu() for key, value in found.items()} for name, found in sums.items()}
            checkpoint["train_metrics_by_rank"] = collectives.gather(here)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved, if training continues."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        ranks = checkpoint.get("train_metrics_by_rank") or [checkpoint.get("train_metrics", {})]
        found = _own_sums(ranks, trainer.global_rank, trainer.world_size)
        metrics = _of(pl_module, "train")
        if any(found.values()):  # an example whose sums are written over: torchmetrics warns of a metric without any
            # Lightning moves the metrics to the device later than it restores them.
            logits = torch.zeros(1, pl_module.hparams["num_classes"], device=metrics["loss"].device)
            count(metrics, logits.sum(), logits, logits.argmax(dim=1))
        self._restored = found
        self._restore(pl_module)

    def _restore(self, pl_module: L.LightningModule) -> None:
        for name, metric in _of(pl_module, "train").items(keep_base=True):
            for key, value in self._restored.get(name, {}).items():
                setattr(metric, key, value.to(metric.device))


class LearningRates(LearningRateMonitor):
    """Logs the learning rates of each step once, also where a step takes several batches."""

    def __init__(self) -> None:
        super().__init__(logging_interval="step")

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log those of the step that this batch begins."""
        *_, batch_idx = args
        if batch_idx % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_start(trainer, *args, **kwargs)


def logs_this_step(trainer: L.Trainer) -> bool:
    """Return whether the step under way is one of those that are logged; a call of `log` costs 1 ms."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector; 0 is never
    return (trainer.global_step + 1) % (int(every) or sys.maxsize) == 0


def _of(model: Any, split: str) -> MetricCollection:
    metrics: MetricCollection = getattr(model, f"{split}_metrics")
    return metrics


def _log_means(model: L.LightningModule, split: str) -> None:
    metrics = _of(model, split)
    model.log_dict(metrics.compute(), prog_bar=True)
    metrics.reset()


def _own_sums(ranks: list[Sums], rank: int, world_size: int) -> Sums:
    """Return the sums of one process; where their number is another one now, the first process gets those of all."""
    if len(ranks) == world_size:
        return ranks[rank]
    here = int(rank == 0)
    return {
        name: {key: torch.stack([sums[name][key] for sums in ranks]).sum(dim=0) * here for key in ranks[0][name]}
        for name in ranks[0]
    }


def _accuracy(num_classes: int) -> MulticlassAccuracy:
    # validate_args waits for the device on every batch; the number of classes is checked once, in setup.
    return MulticlassAccuracy(num_classes, average="micro", validate_args=False)


# A network that has not begun to learn, as deep VGGs without BatchNorm often do not, and any network in too few steps.

FEW_STEPS = 50  # in all: many networks have not begun to learn by then
FEWEST_STEPS = 100  # before that nothing is said but at the end: many networks take some dozens of steps to begin
STEPS = 200  # after which to look, if the first epoch is longer
NEAR = 0.03  # how close to ln(num_classes) the mean loss of a network is that has learnt nothing


class ChanceNote(Callback):
    """Prints one line if a run will be too short to learn, and one if the network is at chance accuracy.

    The accuracy is at chance if loss and accuracy on the training images are those of random predictions, if all
    validation images get one prediction, or if at the end the validation accuracy is that of random
    predictions. Training is checked once: at the end of the first epoch that leaves `FEWEST_STEPS` behind, or after
    `STEPS` steps of an epoch. The means are there anyway, so it costs nothing before.
    """

    def __init__(self) -> None:
        self.looked = False
        self.told = False
        self._answers = torch.zeros(0, 2, dtype=torch.bool)  # (num_classes, 2): is it among the answers, the labels
        self._validated = 0  # images

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say if all of the data, read as often as was asked for, makes few steps."""
        steps = trainer.estimated_stepping_batches
        limited = trainer.limit_train_batches != 1.0 or trainer.max_steps != -1
        if steps < FEW_STEPS and not limited and trainer.is_global_zero:
            print(
                f"note: this run has {steps:.0f} steps in all, which is few: for more, lower "
                f"{option('data.batch_size')} or raise {option('trainer.max_epochs')}",
                flush=True,
            )

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

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the validation before."""
        self._answers = torch.zeros(pl_module.hparams["num_classes"], 2, dtype=torch.bool, device=pl_module.device)
        self._validated = 0

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Note which classes are among the answers, and which among the labels."""
        if isinstance(outputs, Tensor) and len(outputs):
            batch = Batch.of(batch)
            share = batch.share
            both = torch.stack([outputs.argmax(dim=1), batch.labels[: share.own]], dim=1)
            self._answers |= one_hot(both, len(self._answers)).bool().any(dim=0).T
            self._validated += share.total

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say if all images get one answer, unless the network may have had too few steps to begin."""
        if trainer.global_step >= FEWEST_STEPS and not trainer.sanity_checking:
            self._look_at_answers(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say if the last validation is that of random answers."""
        self._look_at_answers(trainer, pl_module)
        accuracy = float(trainer.callback_metrics.get("val_acc", 1.0))
        chance = 1 / pl_module.hparams["num_classes"]
        if self._validated and accuracy < chance + 2 * math.sqrt(chance * (1 - chance) / self._validated):
            self._tell(
                trainer, pl_module, f"the validation accuracy, {100 * accuracy:.1f} %, is that of random answers"
            )

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.looked = True
        metrics: Any = pl_module.train_metrics
        # Read, not computed: torchmetrics would gather from all ranks, and warn if nothing had been counted.
        loss = float(metrics["loss"].mean_value) / max(float(metrics["loss"].weight), 1.0)
        right, wrong = float(metrics["acc"].tp.sum()), float(metrics["acc"].fn.sum())
        classes = int(pl_module.hparams["num_classes"])
        if at_chance(loss, right, right + wrong, classes):
            accuracy = 100 * right / (right + wrong)
            found = f"the network is at chance: accuracy {accuracy:.1f} % of {classes} classes, "
            self._tell(trainer, pl_module, f"{found}loss {loss:.3f} (ln {classes} is {math.log(classes):.3f})")

    def _look_at_answers(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        answers, labels = self._answers.sum(dim=0).tolist() if self._validated else (0, 0)
        if answers == 1 and labels > 1:
            names: Any = pl_module.class_names
            answer = printable(names[int(self._answers[:, 0].int().argmax())])
            self._tell(trainer, pl_module, f"the network predicts {answer!r} for every validation image")

    def _tell(self, trainer: L.Trainer, pl_module: L.LightningModule, found: str) -> None:
        """Say it with what helps, once in a run."""
        if not self.told and trainer.is_global_zero:
            steps = trainer.global_step
            say(f"note: after {counted(steps, 'step')} {found}; what helps: {_helps(steps, dict(pl_module.hparams))}")
        self.told = True


def at_chance(loss: float, right: float, seen: float, num_classes: int) -> bool:
    """Return whether a mean loss and a number of right answers are what random answers give."""
    if not seen:
        return False
    chance = 1 / num_classes
    spread = 4 * math.sqrt(chance * (1 - chance) / seen)  # four standard deviations of random answers
    return abs(loss - math.log(num_classes)) < NEAR and right / seen < chance + spread


def _helps(steps: int, hparams: dict[str, Any]) -> str:
    if steps < FEWEST_STEPS:
        sizes = f"a smaller {option('data.batch_size')} or a larger {option('trainer.max_epochs')}"
        return f"more steps ({sizes}), or {option('model.weights')} of a trained network"
    helps = []
    if hparams["init"] not in ("xavier", "kaiming"):
        helps.append(f"{option('model.init')} xavier (or kaiming)")
    if not hparams["batch_norm"]:
        helps.append(f"{option('model.batch_norm')} true")
    helps.append(f"a larger or smaller {option('model.lr')} than {hparams['lr']:g}")
    return ", ".join(helps)
