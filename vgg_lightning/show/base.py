"""The base classes of the callbacks of --show: when they are called, and that their errors do not end a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.progress import say
from vgg_lightning.data.batches import Batch
from vgg_lightning.data.foreign import images_method
from vgg_lightning.run import collectives
from vgg_lightning.run.loggers import boards
from vgg_lightning.run.loggers.boards import Board


class Show(Callback):
    """A callback that writes into TensorBoard, and into other loggers that take images.

    It draws no random numbers and leaves the network as it was, so that a run ends with the same bits with and
    without it. Where it fails it says so once, and training continues.
    """

    tensorboard_alone = False  # whether it needs what torch's SummaryWriter alone has

    def __init__(self) -> None:
        self._broken = False

    def attempt(self, trainer: L.Trainer, draw: Callable[[Any, int], None]) -> None:
        """Call `draw` with each board of the run and the step, on the first process."""
        if self._broken or not trainer.is_global_zero:
            return
        step = max(trainer.global_step - 1, 0)  # of the last batch: a resumed run drops what is of later steps
        try:
            boards.show(trainer, lambda board: draw(board, step), self.tensorboard_alone)
        except Exception as error:  # whatever it is, an image is not worth a run
            self._broken = True
            reason = " ".join(str(error).split())[:200]
            say(f"{type(self).__name__} is not shown: {type(error).__name__}: {reason}")


class Answers(NamedTuple):
    """What the network said in a validation, on all processes, in the order of the images.

    Attributes:
        indices: of the images in the validation set, int64 (N,).
        logits: float32 (N, num_classes).
        labels: int64 (N,).
    """

    indices: Tensor
    logits: Tensor
    labels: Tensor


class ValidationShow(Show):
    """A `Show` that is called at the end of every validation of a fit, with all that the network has answered."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Answers] = []

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write to `board`; the model is in evaluation, and holds the averaged weights if there are any."""
        raise NotImplementedError

    def gathered(self, trainer: L.Trainer, answers: Answers) -> None:
        """Keep of a validation what later ones show as well; on all processes, which save the same checkpoint."""

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget a validation that was broken off."""
        self._parts = []

    def on_validation_batch_end(  # type: ignore[override]  # Classifier returns the logits
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Tensor, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the answers."""
        ours = Batch.of(batch)
        indices, own = ours.indices, slice(ours.share.own)
        if not isinstance(batch, Batch):  # of another loader: each process has every `world_size`-th image in order
            seen = sum(len(part.labels) for part in self._parts)
            indices = trainer.global_rank + trainer.world_size * torch.arange(seen, seen + ours.share.own)
        self._parts.append(Answers(indices[own].to(outputs.device), outputs.float(), ours.labels[own]))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the answers of all processes together and show something of them."""
        parts, self._parts = self._parts, []
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING or not parts:
            return
        answers = _gather(parts)
        self.gathered(trainer, answers)
        self.attempt(trainer, lambda board, step: self.show(board, step, trainer, pl_module, answers))


def _gather(parts: list[Answers]) -> Answers:
    """Return the answers of all processes, in the order of the images."""
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    if collectives.several():
        columns = [torch.cat(gather_all_tensors(column)) for column in columns]
    order = columns[0].argsort()
    return Answers(*(column[order].cpu() for column in columns))


def validation_images(trainer: L.Trainer) -> tuple[Tensor, Tensor]:
    """Return all validation images (N, 1, 28, 28) and their labels (N,). Raises UserError for plain loaders."""
    data: Any = getattr(trainer, "datamodule", None)
    images_of = images_method(data)
    if images_of is None:
        raise UserError("it needs the images themselves, which a data module has and a loader has not")
    images, labels = images_of("val")
    return images, labels


def some_images(trainer: L.Trainer, count: int) -> tuple[Tensor, Tensor]:
    """Return about `count` validation images (N, 1, 28, 28) and their labels (N,), always the same ones.

    Every class has as many as any other, the first ones, class after class.
    """
    images, labels = validation_images(trainer)
    classes = len(trainer.datamodule.class_names)  # type: ignore[attr-defined]
    chosen = [(labels == c).nonzero().flatten()[: max(1, count // classes)] for c in range(classes)]
    which = torch.cat(chosen)[:count]
    return images[which], labels[which]


some_pictures = some_images  # the former name
