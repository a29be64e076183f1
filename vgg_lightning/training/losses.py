"""The loss of a batch: of labels or of targets that mix them, and of a teacher's answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.training.trained import Trained


def label_loss(logits: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of logits (N, num_classes).

    Args:
        logits: of the pictures.
        y: labels, int64 (N,), or the shares of the classes, floating (N, num_classes).
        label_smoothing: share of each target that is spread over all classes, also where labels are mixed already.
    """
    y = y.to(logits.dtype) if y.is_floating_point() else y
    return F.cross_entropy(logits, y, label_smoothing=label_smoothing)


def teacher_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return how far the answers are from the teacher's: Hinton et al., https://arxiv.org/abs/1503.02531.

    It is the mean Kullback-Leibler divergence of both softened by `temperature`, times its square, which keeps the
    gradients as large as those of the labels.
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.to(logits.dtype) / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class Teacher:
    """A trained classifier to learn from: no module of the one that learns, so it is in none of its checkpoints.

    Args:
        path: the run folder or checkpoint that it was loaded from, for messages.
        model: the classifier; its weights are frozen.
    """

    def __init__(self, path: str, model: Trained) -> None:
        self.path = path
        self.model = model
        self.model.network.requires_grad_(False)

    def __deepcopy__(self, memo: object) -> Teacher:
        """Return itself: an average of the student's weights needs no second teacher."""
        return self

    def check(self, student: Trained) -> None:
        """Raise UserError if the teacher has not the student's pictures and classes."""
        for name in ("image_size", "in_channels", "num_classes"):
            has, asked = self.model.hparams[name], student.hparams[name]
            if has != asked:
                raise UserError(f"{self._named()} has {name} {has}, the model {asked}: give both the same")
        if self.model.preprocess.normalize != student.preprocess.normalize:
            raise UserError(f"{self._named()} has data.normalize {self.model.preprocess.normalize}: give both the same")

    def _named(self) -> str:
        return f"{option('model.teacher')} {self.path}"

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the teacher's logits (N, num_classes), on the device of the pictures."""
        self.model.to(x.device)
        logits: Tensor = self.model(x)
        return logits


def check_distillation(teacher: str | None, distill: float) -> None:
    """Raise UserError for a teacher that nothing is learnt from. That `distill` has a teacher matters to fit alone."""
    if teacher is not None and not distill:
        without = f"without {option('model.distill')}"
        raise UserError(f"{option('model.teacher')} has no effect {without}: give it, such as 0.5")
