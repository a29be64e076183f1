"""The LightningModule: one network, one loss, one set of metrics, one optimizer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from vgg_lightning.callbacks.averaging import AveragedWeights
from vgg_lightning.callbacks.chance import ChanceNote
from vgg_lightning.callbacks.finite import FiniteGuard
from vgg_lightning.callbacks.lookahead import Lookahead
from vgg_lightning.data.batches import Share
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.files import CLASSES
from vgg_lightning.data.pictures import Pictures, to_uint8
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.errors import UserError
from vgg_lightning.networks import build_network
from vgg_lightning.networks.init import initialize
from vgg_lightning.networks.whitened_vgg import WhiteningConv
from vgg_lightning.parallel import talk
from vgg_lightning.parallel.shard import shard
from vgg_lightning.seeds import derive_seed, seed_device
from vgg_lightning.training.memory import check_weights_fit
from vgg_lightning.training.metrics import MeanLoss
from vgg_lightning.training.optimizers import build_optimizer, check_optimizer
from vgg_lightning.training.ranges import check_ranges
from vgg_lightning.training.schedules import build_schedule, check_schedule, restart_schedule
from vgg_lightning.tta import average_views, check_tta

# Options of the networks with the values that change nothing; what differs is handed to the builder.
NETWORK_OPTIONS: dict[str, object] = {
    "ratio": 1,
    "hidden_units": 4096,
    "batch_norm": False,
    "norm_after_relu": False,
    "head": "classic",
    "dropout": 0.5,
}
WHITENED_FROM = 5000  # pictures


class Predictions(NamedTuple):
    """What a classifier says of N pictures."""

    labels: Tensor  # int64 (N,)
    names: list[str]  # the labels' class names
    probabilities: Tensor  # float32 (N, num_classes)


class Classifier(L.LightningModule):
    """A network that is trained to tell the classes of pictures apart.

    Args:
        network: "vgg11", "vgg13", "vgg16", "vgg19" or another name out of the table of networks.
        ratio: divides the channels of every VGG block.
        hidden_units: width of the two hidden layers of the heads "classic" and "batchnorm".
        batch_norm: BatchNorm with every convolution of a VGG.
        norm_after_relu: BatchNorm after the ReLU in place of before it.
        head: "classic" (Linear layers with dropout), "batchnorm" or "gap" (global average pooling).
        dropout: probability with which the head drops a feature.
        in_channels: channels of the pictures.
        num_classes: number of classes.
        image_size: height and width of the pictures in pixels.
        init: initial weights: "default", "xavier", "kaiming" or "dirac".
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate; with a schedule, its peak.
        momentum: of SGD.
        nesterov: Nesterov's momentum for SGD.
        weight_decay: on the weights of convolutions and Linear layers, not on biases and BatchNorm.
        schedule: of the learning rate: "constant", "cosine" or "linear" (to zero at the end of the run).
        warmup_epochs: epochs in which the learning rate climbs to `lr`; parts of an epoch are allowed.
        label_smoothing: share of the target that is spread over all classes.
        ema_decay: decay per step of a moving average of the weights, which is validated and saved; 0 is none.
        lookahead_steps: steps after which training goes on from an average of the weights; 0 never does.
        tta: test-time augmentation: "none", or "flip" to average the logits of each picture and its mirror image.
        channels_last: memory layout in which convolutions run faster.
        weights: run folder or checkpoint whose weights to start from (fine-tuning, not resuming).

    Raises:
        UserError: if an option is unknown or out of its range.
    """

    def __init__(
        self,
        network: str = "vgg11",
        ratio: int = 1,
        hidden_units: int = 4096,
        batch_norm: bool = False,
        norm_after_relu: bool = False,
        head: str = "classic",
        dropout: float = 0.5,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 32,
        init: str = "default",
        optimizer: str = "sgd",
        lr: float = 0.05,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        warmup_epochs: float = 0.0,
        label_smoothing: float = 0.0,
        ema_decay: float = 0.0,
        lookahead_steps: int = 0,
        tta: str = "none",
        channels_last: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="weights")  # once loaded, the weights are in the checkpoint itself
        check_ranges(self.hparams)
        check_optimizer(optimizer)
        check_schedule(schedule)
        check_tta(tta)
        check_weights_fit(self.build, picture_bytes=4 * in_channels * image_size**2)
        self.network: nn.Module = self.build()
        initialize(self.network, init)
        if channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.example_input_array = torch.zeros(()).expand(2, in_channels, image_size, image_size)  # for the graph
        self.class_names: Sequence[str] = CLASSES
        self.preprocess = Preprocess(max(image_size, 28), in_channels=in_channels)
        metrics = MetricCollection({"loss": MeanLoss(), "acc": _accuracy(num_classes)}, compute_groups=False)
        self.train_metrics = metrics.clone(prefix="train_")
        if tta != "none":
            metrics.add_metrics({"acc_tta": _accuracy(num_classes)})
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")
        if weights is not None:
            from vgg_lightning.checkpoints.load import load_weights  # imported here: it needs this module

            load_weights(self, weights)

    def build(self) -> nn.Module:
        """Return a new network of the kind that the options name, with torch's own initial weights."""
        common = {name: self.hparams[name] for name in ("in_channels", "num_classes", "image_size")}
        options = {k: self.hparams[k] for k, v in NETWORK_OPTIONS.items() if self.hparams[k] != v}
        return build_network(self.hparams["network"], **common, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of preprocessed pictures (N, in_channels, image_size, image_size)."""
        layout = torch.channels_last if self.hparams["channels_last"] else torch.contiguous_format
        logits: Tensor = self.network(x.to(self.dtype, memory_format=layout))
        return logits

    def average(self, x: Tensor) -> Tensor:
        """Return the logits of preprocessed pictures, averaged over the views that `tta` names."""
        return average_views(self.hparams["tta"], self, x, self(x))

    @torch.no_grad()
    def predict(self, images: Pictures, batch_size: int = 500) -> Predictions:
        """Classify pictures of any of the usual kinds.

        Args:
            images: uint8 arrays or tensors (N, 28, 28) or (28, 28), white on black as in Fashion-MNIST;
                a PIL picture, a path, or a list of these, of any size and colour.
            batch_size: how many to classify at a time.

        Returns:
            Labels, class names and probabilities of the N pictures.

        Raises:
            UserError: if a picture cannot be read or an array has another shape or type.
        """
        was_training = self.training
        self.eval()
        chunks: Sequence[Tensor] = torch.split(to_uint8(images), batch_size)
        logits = [self.average(self.preprocess(chunk.to(self.device))).float().cpu() for chunk in chunks]
        self.train(was_training)
        probabilities = torch.cat(logits).softmax(dim=1)
        labels = probabilities.argmax(dim=1)
        return Predictions(labels, [self.class_names[i] for i in labels.tolist()], probabilities)

    # Lightning's hooks, in the order in which a run calls them.

    def configure_callbacks(self) -> list[Callback]:
        """Guard the numbers, and average the weights if asked to."""
        decay, steps = self.hparams["ema_decay"], self.hparams["lookahead_steps"]
        averages = [Lookahead(steps)] if steps else []
        return [FiniteGuard(), ChanceNote(), *averages, *([AveragedWeights(decay=decay)] if decay else [])]

    def setup(self, stage: str) -> None:
        """Take over the data's preprocessing and class names, which travel with the checkpoint."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, FashionMNISTDataModule):
            self.check_data(data)
            self.preprocess, self.class_names = data.preprocess, data.class_names

    def configure_model(self) -> None:
        """Give each process its part of the network, if the strategy is FSDP."""
        if isinstance(self._trainer and self._trainer.strategy, ModelParallelStrategy):
            shard(self.network, self.device_mesh)

    def check_data(self, data: FashionMNISTDataModule) -> None:
        """Raise UserError if the network does not fit the data."""
        if len(data.class_names) != self.hparams["num_classes"]:
            raise UserError(
                f"the data has {len(data.class_names)} classes, the model {self.hparams['num_classes']}: "
                f"use --model.num_classes {len(data.class_names)}"
            )
        for name in ("image_size", "in_channels"):
            if data.hparams[name] != self.hparams[name]:
                raise UserError(
                    f"the data has {name} {data.hparams[name]}, the model {self.hparams[name]}: give both the same"
                )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule by name; the schedule moves with every step."""
        hparams = self.hparams
        optimizer = build_optimizer(
            hparams["optimizer"],
            self.network,
            hparams["lr"],
            hparams["momentum"],
            hparams["nesterov"],
            hparams["weight_decay"],
            self.fuses_optimizer(),
        )
        total_steps = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = total_steps / max(self.trainer.max_epochs or 1, 1)
        warmup_steps = round(hparams["warmup_epochs"] * steps_per_epoch)
        scheduler = build_schedule(hparams["schedule"], optimizer, warmup_steps, total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def fuses_optimizer(self) -> bool | None:
        """Return True on a GPU, unless Lightning refuses: where it scales gradients, or clips in mixed precision."""
        plugin = self.trainer.precision_plugin
        clips = isinstance(plugin, MixedPrecision) and self.trainer.gradient_clip_val
        scales = getattr(plugin, "scaler", None) is not None
        return True if self.device.type == "cuda" and not (clips or scales) else None

    def on_fit_start(self) -> None:
        """Compute the filters of a whitening stem from training pictures, unless weights that were loaded have them."""
        data = getattr(self.trainer, "datamodule", None)
        for layer in self.network.modules():
            if isinstance(layer, WhiteningConv) and not layer.whitened and isinstance(data, FashionMNISTDataModule):
                images = data.pictures("train")[0][:WHITENED_FROM]
                layer.whiten(self.preprocess(images.to(self.device)))
                talk.follow_first(layer.state_dict().values())  # other processors round otherwise

    def on_train_start(self) -> None:
        """Let learning rate, schedule and number of epochs asked for win over those in a resumed checkpoint."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):  # ours; the learning-rate finder brings its own
                restart_schedule(config.scheduler, self.hparams["lr"])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by (seed, epoch, batch, rank), whatever was drawn before."""
        seed = getattr(getattr(self.trainer, "datamodule", None), "seed", 0)
        seed_device(self.device, derive_seed(seed, self.current_epoch, batch_idx, self.global_rank, 1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        x, y = batch
        logits = self(x)
        share: Share | None = getattr(getattr(self.trainer, "datamodule", None), "share", None)
        if share is not None:
            logits, y = logits[: share.own], y[: share.own]
        loss = self._loss(logits, y, self.hparams["label_smoothing"])
        self._update(self.train_metrics, loss.detach(), logits.detach(), y)
        if (self.global_step + 1) % self._log_every() == 0:  # a call costs 1 ms, so not on every step
            self.log("train_loss_step", loss.detach(), batch_size=len(y))
        if share is None:
            return loss
        # The processes' gradients are averaged: so weighted, that is the gradient of the mean over the whole batch.
        return loss * (share.own * self.trainer.world_size / share.total)

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

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Count one batch, and return its logits (N, num_classes) for the callbacks."""
        return self._evaluate(self.val_metrics, batch)

    def on_validation_epoch_start(self) -> None:
        """Let all processes validate one network: BatchNorm's statistics are those of the first process."""
        if self.trainer.training or self.trainer.validating:
            talk.follow_first(self.network.buffers())

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy on the validation pictures."""
        self._log_means(self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Count one batch, and return its logits (N, num_classes) for the callbacks."""
        return self._evaluate(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy on the official test pictures."""
        self._log_means(self.test_metrics)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return probabilities (N, num_classes) and the true labels (N,) of one batch."""
        x, y = batch
        some = x if len(x) else x.new_zeros(1, *x.shape[1:])  # a process may have no picture of a last batch
        return self.average(some)[: len(x)].float().softmax(dim=1), y

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what Lightning does not: class names, and the sums behind the means of a running epoch."""
        checkpoint["class_names"] = list(self.class_names)
        state = {k: m.metric_state for k, m in self.train_metrics.items(keep_base=True)}
        checkpoint["train_metrics"] = state
        if talk.several():
            checkpoint["train_metrics_by_rank"] = talk.gather(_on_cpu(state))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        self.class_names = checkpoint.get("class_names", self.class_names)
        found = self._own_sums(checkpoint)
        for name, metric in self.train_metrics.items(keep_base=True):
            for key, value in found.get(name, {}).items():
                setattr(metric, key, value.to(metric.device))
                metric._update_count = max(metric._update_count, 1)

    def _own_sums(self, checkpoint: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
        """Return this process's sums; with another number of processes, the first one gets those of all."""
        ranks = checkpoint.get("train_metrics_by_rank") or [checkpoint.get("train_metrics", {})]
        if len(ranks) == self.trainer.world_size:
            return dict(ranks[self.global_rank])
        whole = {name: {key: sum(rank[name][key] for rank in ranks) for key in ranks[0][name]} for name in ranks[0]}
        nothing = {name: {key: 0 * value for key, value in sums.items()} for name, sums in whole.items()}
        return nothing if self.global_rank else whole

    def _log_every(self) -> int:
        # set by a connector; 0 is never
        return int(self.trainer.log_every_n_steps) or sys.maxsize  # type: ignore[attr-defined]

    def _evaluate(self, metrics: MetricCollection, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        if not len(x):  # in a last batch that is smaller than the number of processes
            return self(x.new_zeros(1, *x.shape[1:]))[:0]  # type: ignore[no-any-return]
        logits: Tensor = self(x)
        self._update(metrics, F.cross_entropy(logits, y), logits, y)
        if "acc_tta" in metrics:
            metrics["acc_tta"].update(average_views(self.hparams["tta"], self, x, logits), y)
        return logits

    def _loss(self, logits: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean loss; of no picture at all it is 0, where torch says NaN."""
        reduction = "mean" if len(y) else "sum"
        return F.cross_entropy(logits, y, label_smoothing=label_smoothing, reduction=reduction)

    def _update(self, metrics: MetricCollection, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        if not len(y):
            return
        metrics["loss"].update(loss, len(y))
        metrics["acc"].update(logits, y)

    def _log_means(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics.compute(), prog_bar=True)
        metrics.reset()


def _on_cpu(state: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: value.cpu() for key, value in sums.items()} for name, sums in state.items()}


def _accuracy(num_classes: int) -> MulticlassAccuracy:
    # validate_args waits for the device on every batch; the number of classes is checked once, in setup.
    return MulticlassAccuracy(num_classes, average="micro", validate_args=False)
