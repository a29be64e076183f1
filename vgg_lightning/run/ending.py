"""When a run ends, and why: the options of the user decide, not those in a checkpoint."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch import callbacks

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.text import count
from vgg_lightning.run.lightning_private import accumulates, batches_of_cut_epoch, epochs_finished, steps_of_epoch


class EarlyStopping(callbacks.EarlyStopping):
    """Stops after so many validations in a row without a better value, as many as were asked for in this launch.

    Args:
        monitor: the logged metric of the validation.
        mode: "max" if more of it is better, else "min".
        patience: validations.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        return self.wait_count >= self.patience

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over how long nothing was better; the patience is that of this launch."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further where a lowered patience is at its end already."""
        trainer.should_stop = trainer.should_stop or self.exhausted


class Timer(callbacks.Timer):
    """Stops after so much time of this launch: that of the launches before does not count.

    Args:
        duration: as the Trainer's max_time.
    """

    def __init__(self, duration: Any) -> None:
        check_duration(duration)
        super().__init__(duration, verbose=False)
        self.asked = duration

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        left = self.time_remaining()
        return left is not None and left <= 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing over."""

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop, but not amid the gradients of a step: a resumed run would lose them."""
        if not accumulates(trainer):
            super().on_train_batch_end(trainer, *args, **kwargs)


def check_duration(value: Any) -> None:
    """Raise UserError if a `max_time` is none."""
    if value is None or isinstance(value, timedelta):
        return
    if isinstance(value, dict):
        try:
            timedelta(**value)
            return
        except TypeError:
            pass
    elif isinstance(value, str) and re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value.strip()):
        return
    raise UserError(f"{option('trainer.max_time')} {value} is not a duration: give DD:HH:MM:SS, as 00:01:30:00")


class Plan(NamedTuple):
    """How long a training is: `epochs`, the last of which may end early, and `batches`; None if nobody knows."""

    epochs: int | None
    batches: int | None


def plan(trainer: L.Trainer) -> Plan:
    """Return how long the training is by max_epochs and max_steps, whichever ends first."""
    each, epochs = trainer.num_training_batches, trainer.max_epochs
    known = each and math.isfinite(each)
    plans = [Plan(epochs, int(epochs * each) if known else None)] if epochs is not None and epochs >= 0 else []
    if trainer.max_steps >= 0 and known:
        whole, rest = divmod(trainer.max_steps, steps_of_epoch(trainer))
        batches = int(whole * each) + rest * trainer.accumulate_grad_batches
        plans.append(Plan(whole + (rest > 0), batches))
    return min(plans, key=lambda plan: plan.batches or 0, default=Plan(None, None))


class Ending(NamedTuple):
    """The option that ended a run, and a line that says so; both empty if the epochs asked for are done."""

    option: str
    text: str


def ending(trainer: L.Trainer) -> Ending:
    """Return why a run ended. Call it once `fit` is over."""
    found: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= epochs_finished(trainer):
        return Ending("", "")
    what, why = "", ""
    if 0 <= trainer.max_steps <= trainer.global_step:
        what, why = "trainer.max_steps", f"{trainer.max_steps:,}"
    elif timer := next((c for c in found if isinstance(c, Timer) and c.expired), None):
        what, why = "trainer.max_time", str(timer.asked)
    elif early := next((c for c in found if isinstance(c, EarlyStopping) and c.exhausted), None):
        what = "early_stopping"
        why = f"{early.patience}: no {early.monitor} better than {float(early.best_score):.4f}"
        why += f" in {count(early.wait_count, 'validation')}"
    elif not trainer.should_stop:
        return Ending("", "")
    batches = batches_of_cut_epoch(trainer)
    within = f", in epoch {epochs_finished(trainer) + 1} after {batches} of {trainer.num_training_batches} batches"
    by = f"{option(what)} {why}" if what else "a callback"
    return Ending(what or "callback", f"ended by {by}{within if batches else ''}")
