"""The loss of a batch: for labels or mixed targets, and for the outputs of a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.data.transforms import Preprocess

HALF = (torch.float16, torch.bfloat16)


def label_loss(logits: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of logits (N, num_classes), in no less than float32.

    Args:
        logits: of the images.
        y: labels, int64 (N,), or the shares of the classes, floating (N, num_classes).
        label_smoothing: share of each target that is spread over all classes, also where labels are mixed already.
    """
    logits = logits.float() if logits.dtype in HALF else logits
    y = y.to(logits.dtype) if y.is_floating_point() else y
    return F.cross_entropy(logits, y, label_smoothing=label_smoothing)


def smoothing_floor(share: float, num_classes: int) -> float:
    """Return the least loss that label smoothing leaves: the entropy of a smoothed target.

    Args:
        share: of the target that is spread over all classes.
        num_classes: number of classes.
    """
    other = share / num_classes
    return -sum(p * math.log(p) for p in (1 - share + other, *[other] * (num_classes - 1)) if p > 0)


def loss_in_words(options: Mapping[str, Any]) -> str:
    """Return what the loss in training has that the loss in validation lacks, or nothing.

    Args:
        options: of a Classifier.
    """
    found = []
    if share := options["label_smoothing"]:
        least = smoothing_floor(share, options["num_classes"])
        found.append(f"label smoothing {share:g}, which leaves at least {least:.2f}")
    if options["distill"]:
        found.append("the answers of the teacher")
    return f"train_loss includes {', and '.join(found)}; val_loss does not" if found else ""


def teacher_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return how far the answers are from the teacher's: Hinton et al., https://arxiv.org/abs/1503.02531.

    It is the mean Kullback-Leibler divergence of both softened by `temperature`, times its square, which keeps the
    gradients as large as those of the labels.
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.to(logits.dtype) / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class Accumulated(Callback):
    """Makes the gradient of accumulated batches that of one batch of all their images, of whatever sizes they are.

    Lightning adds the gradients of the batches' mean losses and divides by how many batches it accumulates: a smaller
    batch then counts as much as a larger one, and fewer batches at the end of an epoch make a shorter step.
    """

    def __init__(self) -> None:
        self._first = self._images = 0  # in the first batch, and in all so far
        self._batches = 1

    def weight(self, images: int, batch_idx: int, batches: int) -> float:
        """Return the factor of the mean loss of a batch.

        Args:
            images: in the batch, over all processes.
            batch_idx: number of the batch in the epoch, from 0.
            batches: how many are accumulated.
        """
        if batch_idx % batches == 0:
            self._first, self._images, self._batches = images, 0, batches
        self._images += images
        return images / self._first

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Turn the sum of gradients into the gradient of the mean loss of all images, before it is clipped."""
        factor = self._batches * self._first / self._images
        if factor == 1:
            return
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


class Student(Protocol):
    """A trained classifier, as much of it as a teacher needs; `Classifier` is one."""

    network: nn.Module
    preprocess: Preprocess
    __call__: Callable[..., Any]

    @property
    def hparams(self) -> Mapping[str, Any]:
        """Its options by name."""

    def to(self, device: torch.device) -> Any:
        """Move it to a device."""


class Teacher:
    """A trained classifier to learn from. It is no submodule of the one that learns, so no checkpoint contains it.

    Args:
        path: run folder or checkpoint that it was loaded from, for messages.
        model: the classifier; its weights are frozen.
    """

    def __init__(self, path: str, model: Student) -> None:
        self.path = path
        self.model = model
        self.model.network.requires_grad_(False)

    def __deepcopy__(self, memo: object) -> Teacher:
        """Return itself: an average of the student's weights needs no second teacher."""
        return self

    def check(self, options: Mapping[str, Any], normalize: bool) -> None:
        """Raise UserError if the teacher was trained on other images or classes.

        Args:
            options: of the student.
            normalize: whether the student's images are normalized.
        """
        named = f"{option('model.teacher')} {self.path}"
        for name in ("image_size", "in_channels", "num_classes"):
            has, asked = self.model.hparams[name], options[name]
            if has != asked:
                raise UserError(f"{named} has {name} {has}, the model {asked}: give both the same")
        if self.model.preprocess.normalize != normalize:
            raise UserError(f"{named} has data.normalize {self.model.preprocess.normalize}: give both the same")

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the teacher's logits (N, num_classes), on the device of the images."""
        self.model.to(x.device)
        logits: Tensor = self.model(x)
        return logits


class Criterion:
    """The loss of a batch: that of the labels, and the share of it that a teacher's answers have.

    Args:
        label_smoothing: share of each target that is spread over all classes.
        teacher: what to learn from beside the labels, or None.
        distill: share of the loss that the teacher's answers have, 0 to 1.
        temperature: softens the answers of both.

    Raises:
        UserError: for a teacher that nothing is learnt from.
    """

    def __init__(self, label_smoothing: float, teacher: Teacher | None, distill: float, temperature: float) -> None:
        check_distillation(teacher.path if teacher else None, distill)
        self.label_smoothing, self.teacher = label_smoothing, teacher
        self.distill, self.temperature = distill, temperature

    def check(self, options: Mapping[str, Any], normalize: bool) -> None:
        """Raise UserError if it cannot be trained with; see `Teacher.check` for the arguments."""
        if self.teacher:
            self.teacher.check(options, normalize)
        elif self.distill:
            give = f"give {option('model.teacher')} a run folder or a checkpoint"
            raise UserError(f"{option('model.distill')} needs a teacher: {give}")

    def __call__(self, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss.

        Args:
            x: preprocessed images, for the teacher.
            logits: of the images, (N, num_classes).
            y: labels, int64 (N,), or the shares of the classes, floating (N, num_classes).
        """
        loss = label_loss(logits, y, self.label_smoothing)
        if not self.teacher:
            return loss
        taught = teacher_loss(logits, self.teacher(x), self.temperature)
        return (1 - self.distill) * loss + self.distill * taught


def check_distillation(teacher: str | None, distill: float) -> None:
    """Raise UserError for a teacher that nothing is learnt from. That `distill` has a teacher matters to fit alone."""
    if teacher is not None and not distill:
        without = f"without {option('model.distill')}"
        raise UserError(f"{option('model.teacher')} has no effect {without}: give it, such as 0.5")
