"""The LightningModule: one network, one loss, one set of metrics, one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.data.batches import Batch
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.files import CLASSES
from vgg_lightning.data.images.prepare import Pictures
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.loading.load import load_model, load_weights
from vgg_lightning.networks import build_network, skeleton
from vgg_lightning.networks.init import initialize
from vgg_lightning.networks.whitened_vgg import WhiteningConv
from vgg_lightning.run import collectives
from vgg_lightning.run.parallel.shard import shard
from vgg_lightning.training.compiling import GRAPH_MODES, compile_network
from vgg_lightning.training.losses import Teacher, check_distillation, label_loss, teacher_loss
from vgg_lightning.training.memory import check_weights_fit
from vgg_lightning.training.metrics import Scored
from vgg_lightning.training.options import PLACES, check_options, network_arguments
from vgg_lightning.training.predictions import Predictions, predict
from vgg_lightning.training.recipe import callbacks_of, check_trainable, optimizer_of, restart_schedules, seed_step
from vgg_lightning.training.sam import sharpness_aware
from vgg_lightning.training.tta import average_views

WHITENED_FROM = 5000  # pictures


class Classifier(Scored):
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
        num_classes: number of classes; on the command line, that of the data unless given.
        image_size: height and width of the pictures in pixels.
        init: initial weights: "default", "xavier", "kaiming" or "dirac".
        optimizer: "sgd", "adam", "adamw" or "muon" (with SGD for biases and BatchNorm).
        lr: learning rate; with a schedule, its peak.
        momentum: of SGD and Muon.
        nesterov: Nesterov's momentum for SGD and Muon.
        weight_decay: on the weights of convolutions and Linear layers, not on biases and BatchNorm.
        schedule: of the learning rate: "constant", "cosine" or "linear" (to zero at the end of the run).
        warmup_epochs: epochs in which the learning rate climbs to `lr`; parts of an epoch are allowed.
        label_smoothing: share of the target that is spread over all classes.
        ema_decay: decay per step of a moving average of the weights, which is validated and saved; 0 is none.
        lookahead_steps: steps after which training goes on from an average of the weights; 0 never does.
        tta: test-time augmentation: "none", "flip" to average the logits of each picture and its mirror image, or
            "flip_shift" to average six views: those two, and both moved by a pixel along the diagonal, either way.
        channels_last: memory layout in which convolutions run faster.
        compile: what torch.compile does to the network in training: "none", "default", "reduce-overhead" (CUDA
            graphs), "max-autotune" or "aot_eager".
        weights: run folder or checkpoint whose weights to start from (fine-tuning, not resuming).
        poolings: how many blocks of a VGG end in a pooling, the first ones; 3 fit pictures of 28 pixels.
        bias_lr_factor: times the learning rate, for biases and BatchNorm.
        schedule_end: share of the learning rate at which a schedule ends, in place of zero.
        sam_rho: how far uphill sharpness-aware minimization looks for its gradient, with two passes a batch; 0 is off.
        teacher: run folder or checkpoint of a network to learn from; it is in no checkpoint of this one.
        distill: share of the loss that the teacher's answers have; the labels have the rest.
        distill_temperature: softens the answers of both.

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
        compile: str = "none",
        weights: str | None = None,
        poolings: int = 5,
        bias_lr_factor: float = 1.0,
        schedule_end: float = 0.0,
        sam_rho: float = 0.0,
        teacher: str | None = None,
        distill: float = 0.0,
        distill_temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=PLACES)
        check_options(self.hparams)
        check_distillation(teacher, distill)
        check_weights_fit(
            partial(skeleton, **network_arguments(self.hparams)), picture_bytes=4 * in_channels * image_size**2
        )
        self.network: nn.Module = self.build()
        initialize(self.network, init)
        if channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.example_input_array = torch.zeros(()).expand(2, in_channels, image_size, image_size)  # for the graph
        self.class_names: Sequence[str] = CLASSES
        self.preprocess = Preprocess(max(image_size, 28), in_channels=in_channels)
        self.score(num_classes, tta=tta != "none")
        self.teacher = Teacher(teacher, load_classifier(teacher)) if teacher else None
        self._recounts = False  # in the second pass of sharpness-aware minimization
        if weights is not None:
            load_weights(self, weights)

    def build(self) -> nn.Module:
        """Return a new network of the kind that the options name, with torch's own initial weights."""
        return build_network(**network_arguments(self.hparams))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of preprocessed pictures (N, in_channels, image_size, image_size)."""
        layout = torch.channels_last if self.hparams["channels_last"] else torch.contiguous_format
        logits: Tensor = self.network(x.to(self.dtype, memory_format=layout))
        keep = not self.training and self.hparams["compile"] in GRAPH_MODES  # several views are averaged, for one
        return logits.clone() if keep else logits

    def average(self, x: Tensor) -> Tensor:
        """Return the logits of preprocessed pictures, averaged over the views that `tta` names."""
        return average_views(self.hparams["tta"], self, x, self(x))

    def predict(self, images: Pictures, batch_size: int = 100) -> Predictions:
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
        return predict(self, images, batch_size)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **options: Any,
    ) -> Self:
        """Open a checkpoint as `load_classifier` does: verified, with its preprocessing and class names.

        Args:
            checkpoint_path: run folder or file. An open file or an address goes to Lightning.
            map_location: the device to put the model on.
            hparams_file: options to use in place of those in the checkpoint; goes to Lightning.
            strict: the weights must be those of the network; True unless given.
            weights_only: always true: nothing in a checkpoint is run.
            options: to use in place of those in the checkpoint.

        Raises:
            UserError: as `load_classifier`.
        """
        if hparams_file is not None or hasattr(checkpoint_path, "read") or "://" in str(checkpoint_path):
            return super().load_from_checkpoint(checkpoint_path, map_location, hparams_file, strict, True, **options)
        return load_model(cls, checkpoint_path, map_location or "cpu", strict is not False, **options).train()

    # Lightning's hooks, in the order in which a run calls them.

    def configure_callbacks(self) -> list[Callback]:
        """Guard the numbers, and average the weights if asked to."""
        return callbacks_of(self)

    def setup(self, stage: str) -> None:
        """Take over the data's preprocessing and class names, which travel with the checkpoint."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, FashionMNISTDataModule):
            self.check_data(data)
            self.preprocess, self.class_names = data.preprocess, data.class_names
        if stage == "fit":
            check_trainable(self)

    def configure_model(self) -> None:
        """Give each process its part of the network, if the strategy is FSDP."""
        if self._trainer is not None and isinstance(self._trainer.strategy, ModelParallelStrategy):
            shard(self.network, self.device_mesh)

    def check_data(self, data: FashionMNISTDataModule) -> None:
        """Raise UserError if the network does not fit the data."""
        if len(data.class_names) != self.hparams["num_classes"]:
            raise UserError(
                f"the data has {len(data.class_names)} classes, the model {self.hparams['num_classes']}: "
                f"leave {option('model.num_classes')} out, or give {len(data.class_names)}"
            )
        for name in ("image_size", "in_channels"):
            if data.hparams[name] != self.hparams[name]:
                raise UserError(
                    f"the data has {name} {data.hparams[name]}, the model {self.hparams[name]}: give both the same"
                )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build optimizer and schedule by name; the schedule moves with every step."""
        return optimizer_of(self)

    def on_fit_start(self) -> None:
        """Compute the filters of a whitening stem from training pictures, unless weights that were loaded have them."""
        data = getattr(self.trainer, "datamodule", None)
        for layer in self.network.modules():
            if isinstance(layer, WhiteningConv) and not layer.whitened and isinstance(data, FashionMNISTDataModule):
                images = data.pictures("train")[0][:WHITENED_FROM]
                layer.whiten(self.preprocess(images.to(self.device)))
                collectives.follow_first(layer.state_dict().values())  # other processors round otherwise

    def on_train_start(self) -> None:
        """Let learning rate, schedule and epochs asked for win over those in a resumed checkpoint; compile."""
        restart_schedules(self.trainer, self.hparams["lr"])
        compile_network(self.network, self.hparams["compile"])  # not before: TensorBoard has drawn its graph by now

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by (seed, epoch, batch, rank), whatever was drawn before."""
        seed_step(self, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch, whose targets are labels, or shares of the classes (N, num_classes)."""
        x, y, _, share, *_ = Batch.of(batch)
        logits = self(x)[: share.own]
        x, y = x[: share.own], y[: share.own]
        loss = self._mean_loss(x, logits, y) if share.own else logits.sum()  # 0, where a mean of none is NaN
        if not self._recounts:
            self._record_step(loss.detach(), logits.detach(), y)
        return loss * share.weight

    def _mean_loss(self, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        loss = label_loss(logits, y, self.hparams["label_smoothing"])
        if not self.teacher:
            return loss
        share = float(self.hparams["distill"])
        taught: Tensor = teacher_loss(logits, self.teacher(x), self.hparams["distill_temperature"])
        return (1 - share) * loss + share * taught

    def _record_step(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        self.count(self.train_metrics, loss, logits, y)
        if self.logs_this_step():
            self.log("train_loss_step", loss, batch_size=len(y))

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take a step; with `sam_rho`, along the gradient found that far uphill."""
        closure, rho = optimizer_closure, self.hparams["sam_rho"]
        if closure is not None and rho:
            closure = sharpness_aware(self, closure, partial(self._pass_again, closure, batch_idx), rho)
        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def _pass_again(self, closure: Callable[[], Any], batch_idx: int) -> None:
        seed_step(self, batch_idx)
        self._recounts = True
        try:
            closure()
        finally:
            self._recounts = False

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Count one batch, and return its logits (N, num_classes) for the callbacks."""
        return self._evaluate(self.val_metrics, batch)

    def on_validation_epoch_start(self) -> None:
        """Let all processes validate one network: BatchNorm's statistics are those of the first process."""
        collectives.follow_first(self.network.buffers())

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Count one batch, and return its logits (N, num_classes) for the callbacks."""
        return self._evaluate(self.test_metrics, batch)

    def predict_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return probabilities (N, num_classes) and the true labels (N,) of one batch."""
        x, y, _, share, *_ = Batch.of(batch)
        return self.average(x)[: share.own].float().softmax(dim=1), y[: share.own]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what Lightning does not: class names, and the sums behind the means of a running epoch."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["class_names"] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        super().on_load_checkpoint(checkpoint)
        self.class_names = checkpoint.get("class_names", self.class_names)

    def _evaluate(self, metrics: MetricCollection, batch: Any) -> Tensor:
        x, y, _, share, *_ = Batch.of(batch)
        every: Tensor = self(x)
        logits, y = every[: share.own], y[: share.own]
        self.count(metrics, F.cross_entropy(logits, y), logits, y)
        if "acc_tta" in metrics:
            metrics["acc_tta"].update(average_views(self.hparams["tta"], self, x, every)[: share.own], y)
        return logits


def load_classifier(path: str | Path, map_location: str | torch.device = "cpu") -> Classifier:
    """Open a run folder, a checkpoint or a .safetensors file as a Classifier in evaluation mode, ready to `predict`.

    Nothing that the file names is imported or run, and its options are held against its weights before
    anything is built from them.

    Args:
        path: a run folder (its best checkpoint is taken), a checkpoint file, or a .safetensors file with its card.
        map_location: the device to put it on.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    return load_model(Classifier, path, map_location)
