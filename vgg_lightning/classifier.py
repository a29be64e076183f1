"""The LightningModule: one network, one loss, one set of metrics, one optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor, nn

from vgg_lightning.data.images.decode import Pictures, to_uint8
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.loading.load import Known, given, load_model, load_weights, numbered, reopen
from vgg_lightning.networks import Head, InitScheme, build_network, initialize
from vgg_lightning.run.collectives import shard
from vgg_lightning.run.lightning_private import attached_trainer
from vgg_lightning.training import losses, memory, metrics, recipe, sam
from vgg_lightning.training.compiling import CompileMode, kept, layout, pool_first
from vgg_lightning.training.optimizers import OptimizerName
from vgg_lightning.training.options import PLACES, NetworkOptions, network_arguments, settle_options
from vgg_lightning.training.schedules import ScheduleName
from vgg_lightning.training.tta import Predictions, ViewsName, average_views


class Classifier(L.LightningModule):
    """An image classifier.

    Arguments are keywords, sorted by theme; one that is unknown or out of its range raises UserError.

    Args:
        network: "vgg11", "vgg13", "vgg16", "vgg19" or another name of the table of networks.
        ratio: divisor of the channels of every VGG block.
        hidden_units: width of the two hidden layers of the heads "classic" and "batchnorm".
        batch_norm: BatchNorm with every convolution of a VGG.
        norm_after_relu: BatchNorm after the ReLU instead of before it.
        head: "classic" (Linear layers with dropout), "batchnorm" or "gap" (global average pooling).
        dropout: probability with which the head drops a feature.
        poolings: number of VGG blocks that end in a pooling, the first ones; 3 suit images of 28 pixels.
        options: of the network, such as {"width": 32}: all of one of your own, or what no other argument says.
        in_channels: channels of the images.
        num_classes: number of classes; on the command line, that of the data unless given.
        image_size: height and width of the images in pixels.
        init: initial weights: "default", "xavier", "kaiming" or "dirac".
        weights: run folder, checkpoint or "reference" to fine-tune; "torchvision", or a file of its weights of VGG.
        optimizer: "sgd", "adam", "adamw" or "muon" (with SGD for biases and BatchNorm).
        lr: learning rate; with a schedule, its peak.
        momentum: of SGD and Muon.
        nesterov: Nesterov's momentum for SGD and Muon.
        weight_decay: on the weights of convolutions and Linear layers, not on biases and BatchNorm.
        bias_lr_factor: factor of the learning rate of biases and BatchNorm.
        sam_rho: radius of sharpness-aware minimization (SAM), with two passes a batch; 0 disables it.
        schedule: of the learning rate: "constant", "cosine" or "linear" (to zero at the end of the run).
        schedule_end: share of the learning rate at which the schedule ends, instead of zero.
        warmup_epochs: epochs, or parts of one, in which the learning rate rises to `lr`.
        label_smoothing: share of the target that is spread over all classes.
        teacher: run folder or checkpoint of a network to learn from; no checkpoint contains it.
        distill: weight of the distillation loss; the loss of the labels has the rest.
        distill_temperature: temperature of the outputs of both networks.
        ema_decay: decay per step of a moving average of the weights, which is validated and saved; 0 disables it.
        lookahead_steps: Lookahead: continue from an average of the weights every N steps; 0 disables it.
        tta: test-time augmentation, over which logits are averaged: "none", "flip" (2 views) or "flip_shift" (6).
        channels_last: memory layout in which convolutions are faster.
        compile: torch.compile in training: "none", "default", "reduce-overhead", "max-autotune" or "aot_eager".
    """

    def __init__(
        self, *, network: str = "vgg11", ratio: int = 1, hidden_units: int = 4096, batch_norm: bool = False,
        norm_after_relu: bool = False, head: Head = "classic", dropout: float = 0.5, poolings: int = 5,
        options: NetworkOptions | None = None, in_channels: int = 1, num_classes: int = 10, image_size: int = 32,
        init: InitScheme = "default", weights: str | None = None,  # start
        optimizer: OptimizerName = "sgd", lr: float = 0.05, momentum: float = 0.0, nesterov: bool = False,
        weight_decay: float = 0.0, bias_lr_factor: float = 1.0, sam_rho: float = 0.0,
        schedule: ScheduleName = "constant", schedule_end: float = 0.0, warmup_epochs: float = 0.0,
        label_smoothing: float = 0.0, teacher: str | None = None, distill: float = 0.0,  # loss
        distill_temperature: float = 2.0, ema_decay: float = 0.0, lookahead_steps: int = 0, tta: ViewsName = "none",
        channels_last: bool = True, compile: CompileMode = "none",  # execution
    ) -> None:  # fmt: skip
        super().__init__()
        self.save_hyperparameters(ignore=PLACES)
        settle_options(self.hparams)
        memory.check_weights_fit(self.hparams)
        self.network = initialize(self.build(), init).to(memory_format=layout(channels_last))
        self.example_input_array = torch.zeros(()).expand(2, in_channels, image_size, image_size)  # for the graph
        self.preprocess = Preprocess(max(image_size, 28), in_channels=in_channels)
        self.class_names: Sequence[str] = numbered(self.hparams)
        self.settled = False  # whether both are those of a training, and not to be replaced
        self.train_metrics, self.val_metrics, self.test_metrics = metrics.epoch_metrics(num_classes, tta != "none")
        self.teacher = losses.Teacher(teacher, load_classifier(teacher)) if teacher else None
        self.criterion = losses.Criterion(label_smoothing, self.teacher, distill, distill_temperature)
        self.accumulated, self.sharpness = losses.Accumulated(), sam.SharpnessAware(self.network, sam_rho)
        if weights is not None:
            load_weights(self, weights)

    def build(self) -> nn.Module:
        """Return a new network of the kind that the options name, with torch's own initial weights."""
        return pool_first(build_network(**network_arguments(self.hparams)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of preprocessed images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.network(x.to(self.dtype, memory_format=layout(self.hparams["channels_last"])))
        return logits if self.training else kept(logits, self.hparams["compile"])

    def average(self, x: Tensor) -> Tensor:
        """Return the logits of preprocessed images, averaged over the views that `tta` names."""
        return average_views(self.hparams["tta"], self, x, self(x))

    @torch.no_grad()
    def predict(self, images: Pictures, batch_size: int = 100) -> Predictions:
        """Classify images, `batch_size` at a time, in evaluation mode.

        They are uint8 arrays or tensors (N, 28, 28) or (28, 28), white on black as in Fashion-MNIST; or a PIL image, a
        path or a list of these, of any size and colour. Raises UserError if one cannot be read or has another shape.
        """
        was_training = self.training
        self.eval()
        batches: Sequence[Tensor] = torch.split(to_uint8(images), batch_size)
        logits = [self.average(self.preprocess(batch.to(self.device))).float().cpu() for batch in batches]
        self.train(was_training)
        return Predictions.of(torch.cat(logits), self.class_names)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Self:
        """Open a checkpoint as `load_classifier` does, in training mode; see `reopen` for the arguments."""
        return reopen(cls, super().load_from_checkpoint, checkpoint_path, *args, **options)

    def configure_callbacks(self) -> list[L.Callback]:
        """Attach what belongs to every fit: guards, averages of the weights, metrics."""
        return [*recipe.callbacks_of(self.hparams), self.accumulated]

    def setup(self, stage: str) -> None:
        """Agree with the data on preprocessing and class names; train what `load_classifier` left in evaluation."""
        self.meet(getattr(self.trainer, "datamodule", None), stage == "fit")
        if stage == "fit":
            if not self.training:  # a part that its user keeps in evaluation leaves the whole in training
                self.train()
            self.criterion.check(self.hparams, self.preprocess.normalize)

    def meet(self, data: object, fit: bool) -> None:
        """Agree with a data module on preprocessing and class names, as `Known.meet` does."""
        known = Known(self.preprocess, self.class_names, self.settled)
        self.preprocess, self.class_names, self.settled = known.meet(data, self.hparams, fit)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save preprocessing and class names."""
        checkpoint |= Known(self.preprocess, self.class_names, self.settled).in_checkpoint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them; the data at hand follows."""
        self.preprocess, self.class_names, self.settled = Known.of(checkpoint, self.hparams, self.preprocess)
        self.meet(getattr(attached_trainer(self), "datamodule", None), fit=False)

    def configure_model(self) -> None:
        """Give each process its part of the network, if the strategy is FSDP."""
        shard(self.network, self._trainer)

    def configure_optimizers(self) -> recipe.Optimization:
        """Build optimizer and schedule by name; the schedule moves with every step."""
        return recipe.optimization(self.hparams, self.network, self.trainer, self.device)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a `Batch`, or of a pair (images, labels)."""
        x, y, _, share, *_ = given(batch, self.preprocess, self.hparams, self)
        x, y, logits = x[: share.own], y[: share.own], self(x)[: share.own]
        loss = self.criterion(x, logits, y) if share.own else logits.sum()  # 0, where a mean of none is NaN
        if not self.sharpness.again:
            metrics.count(self.train_metrics, loss.detach(), logits.detach(), y)
            if metrics.logs_this_step(self.trainer):
                self.log("train_loss_step", loss.detach(), batch_size=len(y))
        whole = self.accumulated.weight(share.total, batch_idx, self.trainer.accumulate_grad_batches)
        return loss * (share.weight * whole)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take a step; with `sam_rho`, along the gradient that is found that far uphill."""
        super().optimizer_step(epoch, batch_idx, optimizer, self.sharpness(optimizer_closure, self.device))

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Count a batch of validation or test, and return its logits (N, num_classes) for the callbacks."""
        x, y, _, (own, *_), *_ = given(batch, self.preprocess, self.hparams, self)
        logits: Tensor = self(x)
        tta = average_views(self.hparams["tta"], self, x, logits)[:own]
        counted = self.test_metrics if self.trainer.testing else self.val_metrics
        metrics.count(counted, losses.label_loss(logits[:own], y[:own], 0.0), logits[:own], y[:own], tta)
        return logits[:own]

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return probabilities (N, num_classes) and the true labels (N,) of one batch."""
        x, y, _, share, *_ = given(batch, self.preprocess, self.hparams, self)
        return self.average(x)[: share.own].float().softmax(dim=1), y[: share.own]


def load_classifier(path: str | Path, map_location: str | torch.device = "cpu") -> Classifier:
    """Open a run folder, a checkpoint or a .safetensors file as a Classifier in evaluation mode; see `load_model`."""
    return load_model(Classifier, path, map_location)
