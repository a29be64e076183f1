"""Stops a run at the first NaN or Inf in a loss or gradient, before the weights change."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from vgg_lightning.base.errors import NonFiniteError, UserError, option
from vgg_lightning.base.torch_private import has_overflowed, mark_non_finite, skip_if
from vgg_lightning.run import collectives
from vgg_lightning.run.checkpoints.read import (
    INFINITE,
    first_non_finite,
    foreign_infinite,
    infinite_buffers,
    named_tensors,
)
from vgg_lightning.run.collectives import own_part

MOST_SKIPS = 25  # steps in a row that 16-mixed may skip while its scale falls: 2 ** -25 of where it was


class Place(NamedTuple):
    """Where a run was."""

    epoch: int
    batch: int
    step: int
    lr: float


class Pending(NamedTuple):
    """The findings of one step on their way from the device."""

    place: Place
    flags: Tensor  # float32 (2,) on the host: the loss, then the gradient; not zero is not finite
    arrived: torch.cuda.Event | None

    def is_here(self) -> bool:
        """Return whether the flags can be read without waiting."""
        return self.arrived is None or bool(self.arrived.query())  # type: ignore[no-untyped-call]


class FiniteGuard(Callback):
    """Raises NonFiniteError if a loss, a gradient, a weight or a validation metric is NaN or Inf.

    A buffer that is infinite before the training, as a mask of attention, may stay so; its name is in the checkpoints,
    so that `read_checkpoint` knows of it.

    On a CPU the check comes right before the optimizer's step. On a GPU that would make the CPU wait for it at
    every step, so the finding stays there: it goes to the fused optimizer, which then leaves the weights alone as it
    does under automatic mixed precision, and the CPU reads it as soon as it has arrived. Once something was found
    no later step touches the weights either, so when the run stops they are those before the fault.

    Under 16-mixed a gradient may overflow now and then; its scaler skips the step and lowers the scale. There the
    loss is checked, and that the scaler does not go on skipping.

    Args:
        deferred: whether to leave the finding on the device; by default if the optimizer is fused and on a GPU.
        metrics: of the validation, to look at before a checkpoint is saved on their account.
    """

    def __init__(self, deferred: bool | None = None, metrics: Sequence[str] = ("val_loss",)) -> None:
        self.deferred = deferred
        self.metrics = tuple(metrics)
        self._found: Tensor | None = None  # float32 (2,) on the device: what was found since the run began
        self._pending: deque[Pending] = deque()
        self._batch = 0
        self._skips = 0
        self._masks: list[str] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the buffers that are infinite from the start, as a mask of attention is: they stay so."""
        self._masks = infinite_buffers(pl_module)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with an Inf in what was finite when the model was new."""
        if name := foreign_infinite(checkpoint, self._masks):
            raise UserError(f"{trainer.ckpt_path} is refused: {name} has an Inf, and the model's own has none")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with nothing found."""
        self._found = torch.zeros(2, device=pl_module.device)
        self._pending.clear()
        self._skips = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the batch, and read what has arrived of the steps before."""
        self._batch = batch_idx
        self._read(trainer, wait=False)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Look at the loss, of every part of an accumulated batch."""
        if self._found is not None:
            torch.maximum(self._found[0], (~loss.detach().isfinite()).float(), out=self._found[0])

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradients, and keep the optimizer from using them if something was found."""
        if self._found is None:
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is None:
            look(optimizer, self._found[1])
        else:
            self._count_skips(trainer, optimizer, scaler)
        if collectives.several() and (scaler is not None or isinstance(trainer.strategy, ModelParallelStrategy)):
            # Else each process sees the sum of all gradients, and so what is wrong in any of them.
            self._found = trainer.strategy.reduce(self._found, reduce_op="max")
        deferred = self._defers(optimizer) and scaler is None
        if deferred:
            skip_if(optimizer, self._found.max())
        self._note(trainer, optimizer)
        self._read(trainer, wait=not deferred)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read everything: no validation of a run that is over."""
        self._read(trainer, wait=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a metric that is NaN or Inf, before it leads to a checkpoint."""
        for name in self.metrics if trainer.state.fn == "fit" else ():
            value = trainer.callback_metrics.get(name)
            if value is not None and not bool(torch.isfinite(value)):
                place = self._place(trainer, trainer.optimizers[0]) if trainer.optimizers else None
                raise NonFiniteError(_message(f"{name} is {float(value)}", place, trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the last step's weights, which no later loss has shown."""
        self._read(trainer, wait=True)
        weights = {name: own_part(tensor) for name, tensor in pl_module.state_dict().items()}
        check_weights(weights, trainer, self._masks)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Prevent a checkpoint with NaN or Inf weights from replacing a good one."""
        self._read(trainer, wait=True)
        for key in ("state_dict", "current_model_state"):
            check_weights(checkpoint.get(key, {}), trainer, self._masks)
        if self._masks:
            checkpoint[INFINITE] = list(self._masks)
        check_weights({"the optimizer's state": checkpoint.get("optimizer_states")}, trainer)  # it could not resume

    def _defers(self, optimizer: torch.optim.Optimizer) -> bool:
        fused = all(group.get("fused") for group in optimizer.param_groups)
        return fused and (self._found is not None and self._found.is_cuda if self.deferred is None else self.deferred)

    def _count_skips(self, trainer: L.Trainer, optimizer: torch.optim.Optimizer, scaler: Any) -> None:
        # The scaler has its own finding; it is read here since the scaler reads it as well, right after.
        self._skips = self._skips + 1 if has_overflowed(scaler, optimizer) else 0
        if self._skips > MOST_SKIPS:
            what = f"the gradient has overflowed in {self._skips} steps in a row"
            raise NonFiniteError(_message(what, self._place(trainer, optimizer), trainer))

    def _place(self, trainer: L.Trainer, optimizer: torch.optim.Optimizer) -> Place:
        return Place(trainer.current_epoch, self._batch, trainer.global_step, float(optimizer.param_groups[0]["lr"]))

    def _note(self, trainer: L.Trainer, optimizer: torch.optim.Optimizer) -> None:
        assert self._found is not None
        arrived = None
        if self._found.is_cuda:
            flags = torch.empty(2, pin_memory=True).copy_(self._found, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        else:
            flags = self._found.clone()
        self._pending.append(Pending(self._place(trainer, optimizer), flags, arrived))

    def _read(self, trainer: L.Trainer, wait: bool) -> None:
        while self._pending and (wait or self._pending[0].is_here()):
            place, flags, arrived = self._pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            loss, gradient = flags.tolist()
            if loss or gradient:
                self._pending.clear()
                what = "the loss" if loss else "the gradient"
                raise NonFiniteError(_message(f"{what} is NaN or Inf", place, trainer))


def look(optimizer: torch.optim.Optimizer, found: Tensor) -> None:
    """Set `found` to 1 if a gradient of `optimizer` is NaN or Inf: one kernel a device and type, no wait."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                gradient = own_part(parameter.grad)
                kinds.setdefault((gradient.device, gradient.dtype), []).append(gradient)
    for (device, _), gradients in kinds.items():
        here = torch.zeros((), device=device)
        mark_non_finite(gradients, here)
        torch.maximum(found, here.to(found.device), out=found)


def check_weights(tensors: dict[str, Any], trainer: L.Trainer, masks: Sequence[str] = ()) -> None:
    """Raise NonFiniteError for the first tensor with NaN or Inf; those in `masks` may have an Inf."""
    if name := first_non_finite(dict(named_tensors(tensors, "")), {f".{mask}" for mask in masks}):
        raise NonFiniteError(_message(f"{name.removeprefix('.')} is NaN or Inf", None, trainer))


def _message(what: str, place: Place | None, trainer: L.Trainer) -> str:
    where = f" in epoch {trainer.current_epoch}, step {trainer.global_step}"
    if place is not None:
        where = f" in epoch {place.epoch}, step {place.step}, batch {place.batch}, at the learning rate {place.lr:g}"
    kept = _newest_checkpoint(trainer)
    last = f"; the last finite checkpoint is {kept}" if kept else "; no checkpoint was saved yet"
    remedy = f"lower {option('model.lr')}, or clip with {option('trainer.gradient_clip_val')} 1"
    return f"{what}{where}: {remedy}{last}"


def _newest_checkpoint(trainer: L.Trainer) -> Path | None:
    """Return the newest checkpoint file that is there: of this launch, or that from which it resumed."""
    files = [Path(str(trainer.ckpt_path))] if trainer.ckpt_path else []
    for saver in trainer.checkpoint_callbacks:
        named = [getattr(saver, name, None) for name in ("last_model_path", "best_model_path", "file")]
        files += [Path(file) for file in named if file]
    there = [file for file in files if file.is_file()]
    return max(there, key=lambda file: file.stat().st_mtime_ns, default=None)
