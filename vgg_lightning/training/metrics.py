"""The numbers of a run: loss and accuracy in training, validation and test, and where they are logged."""

from __future__ import annotations

import sys
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from vgg_lightning.run import collectives

Sums = dict[str, dict[str, Tensor]]


class Scored(L.LightningModule):
    """A LightningModule that keeps loss and accuracy, logs their means, and resumes them within an epoch."""

    train_metrics: MetricCollection
    val_metrics: MetricCollection
    test_metrics: MetricCollection

    def score(self, num_classes: int, tta: bool) -> None:
        """Make the metrics; with `tta`, validation and test have an accuracy of several views as well."""
        metrics = MetricCollection(
            {"loss": MeanMetric(nan_strategy="disable"), "acc": _accuracy(num_classes)}, compute_groups=False
        )
        self.train_metrics = metrics.clone(prefix="train_")
        if tta:
            metrics.add_metrics({"acc_tta": _accuracy(num_classes)})
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")

    def count(self, metrics: MetricCollection, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add one batch to `metrics`: its mean loss, and its logits (N, num_classes) beside its labels (N,).

        Of mixed targets (N, num_classes) the class of the largest share counts as the label.
        """
        if not len(y):  # a process may have no picture of a last batch
            return
        metrics["loss"].update(loss.expand(len(y)))  # with nan_strategy "disable" torchmetrics drops a weight
        metrics["acc"].update(logits, y.argmax(dim=1) if y.ndim > 1 else y)

    def logs_this_step(self) -> bool:
        """Return whether the step under way is one of those that are logged; a call of `log` costs 1 ms."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector; 0 is never
        return (self.global_step + 1) % (int(every) or sys.maxsize) == 0

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch, here and now: after this hook the checkpoint of the epoch is written."""
        means = self.train_metrics.compute()
        self.log_dict(means, prog_bar=True, logger=False)
        step = max(self.global_step - 1, 0)  # that of the last batch, as for the validation metrics
        scalars = {name: float(value) for name, value in means.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics({**scalars, "epoch": self.current_epoch}, step)
            logger.save()
        self.train_metrics.reset()

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy on the validation pictures."""
        self._log_means(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy on the official test pictures."""
        self._log_means(self.test_metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what Lightning does not: the sums behind the means of a running epoch."""
        sums: Sums = {k: cast("dict[str, Tensor]", m.metric_state) for k, m in self.train_metrics.items(keep_base=True)}
        checkpoint["train_metrics"] = sums
        if collectives.several():
            here = {name: {key: value.cpu() for key, value in found.items()} for name, found in sums.items()}
            checkpoint["train_metrics_by_rank"] = collectives.gather(here)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        ranks = checkpoint.get("train_metrics_by_rank") or [checkpoint.get("train_metrics", {})]
        found = _own_sums(ranks, self.global_rank, self.trainer.world_size)
        for name, metric in self.train_metrics.items(keep_base=True):
            for key, value in found.get(name, {}).items():
                setattr(metric, key, value.to(metric.device))
                metric._update_count = max(metric._update_count, 1)

    def _log_means(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics.compute(), prog_bar=True)
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
